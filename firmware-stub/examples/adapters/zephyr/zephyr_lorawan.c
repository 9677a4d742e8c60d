/* sower on Zephyr: downlinks, uplinks and receive windows through its LoRaWAN subsystem.
 *
 * Compiled and linked with Zephyr 3.5.0, its loramac-node 842413c5 (v4.7.0 with Zephyr's changes) and
 * arm-none-eabi-gcc 12.2 for nucleo_wl55jc; not run by us.
 *
 * Zephyr's API has no call for multicast groups, and its downlink callback does not tell the group of a frame. Both are
 * found in the LoRaMac-node below it: ../loramac/loramac_sower.c serves here too, and this file listens to what the MAC
 * indicates before Zephyr does, by the linker's --wrap=LoRaMacInitialization (node/CMakeLists.txt). Leave
 * CONFIG_LORAWAN_SERVICES off: its services would answer on the same ports.
 *
 * The MAC runs in the system work queue, the library in a thread of its own, with a queue between them: an erase may take
 * longer than the MAC can wait for.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <zephyr/kernel.h>
#include <zephyr/lorawan/lorawan.h>

#include <LoRaMac.h>

#include "zephyr_sower.h"

#define RETRY_SECONDS 5u /* when the MAC is busy or out of duty cycle */

LoRaMacStatus_t __real_LoRaMacInitialization(LoRaMacPrimitives_t *primitives, LoRaMacCallback_t *callbacks,
                                             LoRaMacRegion_t region);
LoRaMacStatus_t __wrap_LoRaMacInitialization(LoRaMacPrimitives_t *primitives, LoRaMacCallback_t *callbacks,
                                             LoRaMacRegion_t region);

/* ../loramac/loramac_sower.c */
void loramac_sower_port(struct sow_port *port);
uint32_t loramac_sower_tick(uint32_t now);
void loramac_sower_downlink(struct sow *s, uint32_t now, const McpsIndication_t *in);

struct downlink {
    McpsIndication_t in;
    uint8_t data[242];
};

K_MSGQ_DEFINE(downlinks, sizeof(struct downlink), 3, 4);

static void (*theirs)(McpsIndication_t *in);

static void indication(McpsIndication_t *in)
{
    static struct downlink d; /* one thread calls, and its stack is small */

    if (in->Status == LORAMAC_EVENT_INFO_STATUS_OK && in->RxData && in->BufferSize <= sizeof(d.data)) {
        d.in = *in;
        memcpy(d.data, in->Buffer, in->BufferSize);
        (void)k_msgq_put(&downlinks, &d, K_NO_WAIT); /* one that finds the queue full is lost, as on the air */
    }
    theirs(in);
}

LoRaMacStatus_t __wrap_LoRaMacInitialization(LoRaMacPrimitives_t *primitives, LoRaMacCallback_t *callbacks,
                                             LoRaMacRegion_t region)
{
    static LoRaMacPrimitives_t ours; /* the MAC keeps the pointer */

    ours = *primitives;
    theirs = primitives->MacMcpsIndication;
    ours.MacMcpsIndication = indication;
    return __real_LoRaMacInitialization(&ours, callbacks, region);
}

/* Send one uplink, if one is due. Returns when to come back for the next. */
static uint32_t send(struct sow *s, uint32_t now)
{
    static struct sow_uplink up;
    static bool kept;
    uint8_t next, most;
    int r;

    lorawan_get_payload_sizes(&next, &most);
    sow_max_payload(s, next);
    if (!kept && sow_uplink(s, now, &up) != SOW_DONE) {
        return SOW_NEVER;
    }
    r = lorawan_send(up.port, up.data, up.len, LORAWAN_MSG_UNCONFIRMED); /* returns after the receive windows */
    kept = r == -EBUSY || r == -ECONNREFUSED;
    return kept ? now + RETRY_SECONDS : now;
}

/* The earlier of two seconds; SOW_NEVER is none. */
static uint32_t earlier(uint32_t a, uint32_t b)
{
    if (a == SOW_NEVER || b == SOW_NEVER) {
        return a == SOW_NEVER ? b : a;
    }
    return (int32_t)(a - b) < 0 ? a : b;
}

void zephyr_sower_turn(struct sow *s, uint32_t most)
{
    static struct downlink d;
    uint32_t now = zephyr_sower_now(), wake, left;

    (void)sow_poll(s, now, &wake);
    wake = earlier(wake, send(s, now));
    now = zephyr_sower_now();
    wake = earlier(earlier(wake, loramac_sower_tick(now)), now + most);
    left = (int32_t)(wake - now) > 0 ? wake - now : 0u;
    if (k_msgq_get(&downlinks, &d, K_SECONDS(left)) == 0) {
        d.in.Buffer = d.data;
        loramac_sower_downlink(s, zephyr_sower_now(), &d.in);
    }
}

void zephyr_sower_lorawan(struct sow_port *port)
{
    loramac_sower_port(port);
}
