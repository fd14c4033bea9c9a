// Where armv6m_update.S finds what it needs of st_update_t.
#ifndef ST_ARMV6M_UPDATE_H
#define ST_ARMV6M_UPDATE_H

#define ST_UPDATE_CHANNELS 8 // and n_channels, weights
#define ST_UPDATE_SEED 52

#endif
