/* sower on LoRaMac-node 4.7: multicast groups and receive windows, downlinks and uplinks.
 *
 * Compiled against LoRaMac-node dcbcfb32 (2024-02-06, 12 commits after v4.7.0), not linked and not run by us. Leave the
 * stack's own packages (LmhpRemoteMcastSetup, LmhpFragmentation, LmhpClockSync) out of the build: they would answer on
 * the same ports.
 *
 * The stack has no timer for a window: loramac_sower_tick starts and ends it. Between the two, class A uplinks stay
 * possible and cost a fragment each; sow_quiet_until says for how long to hold them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "LoRaMac.h"
#include "sow.h"

static struct {
    struct sow_mc_group group[4]; /* the stack keeps pointers to the keys */
    struct sow_mc_session window[4];
    uint8_t open;                 /* bit per group that is being listened to */
} mc;

static void set_class(DeviceClass_t c)
{
    MibRequestConfirm_t mib = {.Type = MIB_DEVICE_CLASS};

    mib.Param.Class = c;
    (void)LoRaMacMibSetRequestConfirm(&mib);
}

static void stop(uint8_t id)
{
    if (!(mc.open & 1u << id))
        return;
    mc.open &= (uint8_t)~(1u << id);
    if (mc.open == 0)
        set_class(CLASS_A);
}

static void start(uint8_t id)
{
    const struct sow_mc_session *w = &mc.window[id];
    McRxParams_t rx;
    uint8_t status;

    memset(&rx, 0, sizeof rx);
    rx.Class = w->device_class == 'B' ? CLASS_B : CLASS_C;
    if (rx.Class == CLASS_B) {
        rx.Params.ClassB.Frequency = w->frequency;
        rx.Params.ClassB.Datarate = (int8_t)w->dr;
        rx.Params.ClassB.Periodicity = w->periodicity;
    } else {
        rx.Params.ClassC.Frequency = w->frequency;
        rx.Params.ClassC.Datarate = (int8_t)w->dr;
    }
    if (LoRaMacMcChannelSetupRxParams((AddressIdentifier_t)id, &rx, &status) != LORAMAC_STATUS_OK)
        return;
    mc.open |= (uint8_t)(1u << id);
    set_class(rx.Class); /* class B needs the beacon to be acquired first */
}

static void mc_group(void *user, const struct sow_mc_group *g)
{
    McChannelParams_t channel;

    (void)user;
    stop(g->id);
    mc.group[g->id] = *g;
    if (!g->defined) {
        (void)LoRaMacMcChannelDelete((AddressIdentifier_t)g->id);
        return;
    }
    memset(&channel, 0, sizeof channel);
    channel.IsEnabled = true;
    channel.IsRemotelySetup = false; /* the library has derived the session keys */
    channel.GroupID = (AddressIdentifier_t)g->id;
    channel.Address = g->addr;
    channel.McKeys.Session.McAppSKey = mc.group[g->id].app_s_key;
    channel.McKeys.Session.McNwkSKey = mc.group[g->id].nwk_s_key;
    channel.FCountMin = g->min_fcnt;
    channel.FCountMax = g->max_fcnt - 1u; /* the stack's bound is inclusive */
    (void)LoRaMacMcChannelSetup(&channel);
}

static void mc_session(void *user, const struct sow_mc_session *w)
{
    (void)user;
    stop(w->id);
    mc.window[w->id] = *w;
}

/* From the main loop, after sow_poll and at the second it returns. Returns the second of the next change. */
uint32_t loramac_sower_tick(uint32_t now)
{
    uint32_t wake = SOW_NEVER;

    for (uint8_t i = 0; i < 4u; i++) {
        const struct sow_mc_session *w = &mc.window[i];
        int in = w->start != w->end && (int32_t)(now - w->start) >= 0 && (int32_t)(now - w->end) < 0;

        if (in && !(mc.open & 1u << i))
            start(i);
        if (!in)
            stop(i);
        if (w->start != w->end && (int32_t)(now - w->end) < 0) {
            uint32_t next = in ? w->end : w->start;

            if (wake == SOW_NEVER || (int32_t)(next - wake) < 0)
                wake = next;
        }
    }
    return wake;
}

/* From MacMcpsIndication. */
void loramac_sower_downlink(struct sow *s, uint32_t now, const McpsIndication_t *in)
{
    uint8_t group = SOW_UNICAST;

    if (in->Status != LORAMAC_EVENT_INFO_STATUS_OK || !in->RxData)
        return;
    if (in->Multicast) {
        for (group = 0; group < 4u && (!mc.group[group].defined || mc.group[group].addr != in->DevAddress); group++) {
        }
        if (group == 4u)
            return;
    }
    sow_downlink(s, now, in->Port, group, in->Buffer, in->BufferSize);
}

/* Send what is due; call it when the MAC is idle, one uplink a time. Returns 1 when one was handed over. */
int loramac_sower_uplink(struct sow *s, uint32_t now)
{
    struct sow_uplink up;
    McpsReq_t req;
    LoRaMacTxInfo_t info;

    if (LoRaMacIsBusy())
        return 0;
    if (LoRaMacQueryTxPossible(0, &info) == LORAMAC_STATUS_OK)
        sow_max_payload(s, info.MaxPossibleApplicationDataSize);
    if (sow_uplink(s, now, &up) != SOW_DONE)
        return 0;
    memset(&req, 0, sizeof req);
    req.Type = MCPS_UNCONFIRMED;
    req.Req.Unconfirmed.fPort = up.port;
    req.Req.Unconfirmed.fBuffer = up.data;
    req.Req.Unconfirmed.fBufferSize = up.len;
    return LoRaMacMcpsRequest(&req) == LORAMAC_STATUS_OK;
}

void loramac_sower_port(struct sow_port *port)
{
    port->mc_group = mc_group;
    port->mc_session = mc_session;
}
