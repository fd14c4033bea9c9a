// The port's options, then the changes that mpconfigport.h has no #ifndef for.
#include "mpconfigport.h"

// No TLS library: SHA-256 comes from MicroPython's own code; SHA-1 and AES would need mbedtls.
#undef MICROPY_SSL_MBEDTLS
#undef MICROPY_PY_HASHLIB_SHA1
#undef MICROPY_PY_CRYPTOLIB
#define MICROPY_PY_HASHLIB_SHA1                 (0)
#define MICROPY_PY_CRYPTOLIB                    (0)
