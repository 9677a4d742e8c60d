/* sower on LoRa Basics Modem (SWL2001) 4.x: multicast groups and receive windows, downlinks and uplinks.
 *
 * Compiled against LoRa Basics Modem v4.8.0 (smtc_modem_api.h), not linked and not run by us. Build the modem without
 * its own services (LBM_FUOTA=no, LBM_ALC_SYNC=no): they would answer on the same ports.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "smtc_modem_api.h"
#include "sow.h"

#define STACK 0

static struct sow_mc_session windows[4];
static uint8_t open_windows;

static void mc_group(void *user, const struct sow_mc_group *g)
{
    (void)user;
    if (g->defined)
        (void)smtc_modem_multicast_set_grp_config(STACK, (smtc_modem_mc_grp_id_t)g->id, g->addr, g->nwk_s_key,
                                                  g->app_s_key);
    /* The modem knows no way to forget a group; without a window it does not listen to one. */
}

static void stop(uint8_t id)
{
    if (!(open_windows & 1u << id))
        return;
    open_windows &= (uint8_t)~(1u << id);
    if (windows[id].device_class == 'B')
        (void)smtc_modem_multicast_class_b_stop_session(STACK, (smtc_modem_mc_grp_id_t)id);
    else
        (void)smtc_modem_multicast_class_c_stop_session(STACK, (smtc_modem_mc_grp_id_t)id);
}

static void start(uint8_t id)
{
    const struct sow_mc_session *w = &windows[id];
    smtc_modem_return_code_t rc;

    if (w->device_class == 'B')
        rc = smtc_modem_multicast_class_b_start_session(STACK, (smtc_modem_mc_grp_id_t)id, w->frequency, w->dr,
                                                        (smtc_modem_class_b_ping_slot_periodicity_t)w->periodicity);
    else
        rc = smtc_modem_multicast_class_c_start_session(STACK, (smtc_modem_mc_grp_id_t)id, w->frequency, w->dr);
    if (rc == SMTC_MODEM_RC_OK)
        open_windows |= (uint8_t)(1u << id);
}

static void mc_session(void *user, const struct sow_mc_session *w)
{
    (void)user;
    stop(w->id);
    windows[w->id] = *w;
}

/* From the main loop, once a second while a window is due. */
void lbm_sower_tick(uint32_t now)
{
    for (uint8_t i = 0; i < 4u; i++) {
        const struct sow_mc_session *w = &windows[i];
        int in = w->start != w->end && (int32_t)(now - w->start) >= 0 && (int32_t)(now - w->end) < 0;

        if (in && !(open_windows & 1u << i))
            start(i);
        if (!in)
            stop(i);
    }
}

/* On SMTC_MODEM_EVENT_DOWNDATA. */
void lbm_sower_downlink(struct sow *s, uint32_t now)
{
    uint8_t data[SMTC_MODEM_MAX_LORAWAN_PAYLOAD_LENGTH], len, left;
    smtc_modem_dl_metadata_t meta;

    do {
        uint8_t group = SOW_UNICAST;

        if (smtc_modem_get_downlink_data(data, &len, &meta, &left) != SMTC_MODEM_RC_OK)
            return;
        if (meta.window >= SMTC_MODEM_DL_WINDOW_RXC_MC_GRP0 && meta.window <= SMTC_MODEM_DL_WINDOW_RXC_MC_GRP3)
            group = (uint8_t)(meta.window - SMTC_MODEM_DL_WINDOW_RXC_MC_GRP0);
        else if (meta.window >= SMTC_MODEM_DL_WINDOW_RXB_MC_GRP0 && meta.window <= SMTC_MODEM_DL_WINDOW_RXB_MC_GRP3)
            group = (uint8_t)(meta.window - SMTC_MODEM_DL_WINDOW_RXB_MC_GRP0);
        sow_downlink(s, now, meta.fport, group, data, len);
    } while (left != 0);
}

/* Send one uplink that is due. Returns 1 when one was handed over. */
int lbm_sower_uplink(struct sow *s, uint32_t now)
{
    struct sow_uplink up;
    uint8_t most;

    if (smtc_modem_get_next_tx_max_payload(STACK, &most) == SMTC_MODEM_RC_OK)
        sow_max_payload(s, most);
    if (sow_uplink(s, now, &up) != SOW_DONE)
        return 0;
    return smtc_modem_request_uplink(STACK, up.port, false, up.data, up.len) == SMTC_MODEM_RC_OK;
}

void lbm_sower_port(struct sow_port *port)
{
    port->mc_group = mc_group;
    port->mc_session = mc_session;
}
