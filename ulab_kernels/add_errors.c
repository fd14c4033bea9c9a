#include "add_errors.h"
#include "arch.h"

#if !ST_ARMV6M // which has armv6m_add_errors.S

void st_add_errors(const st_add_errors_t *job) {
    int32_t *to = job->sums;
    for (int32_t i = 0; i < job->blocks * ST_ERROR_BLOCK; i++, to += job->step) {
        int32_t sum = job->add ? *to : 0;
        for (const st_error_term_t *term = job->terms; term->row != ST_NO_ERRORS; term++)
            sum += term->factor * term->row[i];
        *to = sum;
    }
}

#endif
