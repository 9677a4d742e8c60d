/* One device with a port that writes down what it is told. */
#ifndef HARNESS_H
#define HARNESS_H

#include "fake_core.h"
#include "sow_modem.h"

struct harness {
    struct sow s;
    struct sow_modem m;
    struct sow_port port;
    struct sow_map map;
    struct sow_identity id;
    struct sow_config cfg;
    struct sow_options opt;
    struct sow_modem_app app;
    uint64_t arena[16];
    uint32_t seed;
    uint32_t fixed_random; /* what random returns unless it is 0 */
    int reboots, groups, sessions, events;
    struct sow_mc_group group[64];
    struct sow_mc_session session[64];
    uint8_t event[64][2];
    uint8_t self_test; /* verdict of the application; 0xff: it has none yet */
    uint32_t out_len;
    uint8_t out[1u << 16]; /* frames of the modem shell */
};

void harness_init(struct harness *h);
void harness_modem(struct harness *h);

#endif
