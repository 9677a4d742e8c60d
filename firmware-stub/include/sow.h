/* sower device library: firmware updates for a LoRaWAN device, TS003–TS007 in, a verified image out.
 *
 *     static struct sow s;
 *     static uint8_t arena[ARENA] SOW_ALIGNED;
 *     sow_open(&s, &config, arena, sizeof arena);
 *     for (;;) {                                     // in the main loop
 *         if (downlink) sow_downlink(&s, now, port, group, buf, len);
 *         sow_poll(&s, now, &wake);                   // bounded; call again at `wake`
 *         if (sow_uplink(&s, now, &up) == SOW_DONE) send(up.port, up.data, up.len);
 *     }
 *
 * `now` is the device's own clock in seconds; it need not be right (TS003 sets it), only monotonic.
 * One caller at a time. No allocation, no globals, no recursion.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_H
#define SOW_H

#include <stdint.h>

#include "sow_core.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOW_ALIGNED __attribute__((aligned(8)))

#define SOW_PORT_MCSETUP 200u   /* TS005 */
#define SOW_PORT_DATABLOCK 201u /* TS004 */
#define SOW_PORT_CLOCKSYNC 202u /* TS003 */
#define SOW_PORT_FWMGMT 203u    /* TS006 */
#define SOW_PORT_DIAG 204u      /* sower diagnostic package */
#define SOW_PORT_MULTIPACKAGE 225u /* TS007 */

#define SOW_NEVER 0xffffffffu

struct sow_uplink {
    uint8_t port;
    uint8_t len;
    uint8_t data[64];
};

/* When an image on trial counts as good. */
enum sow_confirm_policy {
    SOW_CONFIRM_SELF_TEST = 0, /* the application calls sow_confirm itself */
    SOW_CONFIRM_JOINED = 1,    /* ... and the device has joined (sow_joined) */
    SOW_CONFIRM_DOWNLINK = 2   /* ... and a downlink has been received */
};

struct sow_options {
    uint8_t package_version; /* 1 or 2: TS003/TS004/TS005 version spoken; 0 means 2 */
    uint8_t confirm;         /* enum sow_confirm_policy */
    uint32_t confirm_within; /* seconds after boot before an unconfirmed image is rejected; 0 means 86400 */
    uint8_t max_payload;     /* largest uplink payload, bytes; 0 means 51 */
};

#include "sow_state.h" /* struct sow; private */

/* Start after a reset. *cfg and *opt are copied; port, map, identity and arena must outlive s, and s must stay
 * where it is. Returns SOW_OK, SOW_MORE (poll: an update goes on), or the negated cause for which the library
 * cannot run: every other call then does nothing, and an image on trial has been rejected. -SOW_CAUSE_NO_SERVICES: the boot
 * stub lacks the services that the library was linked for (sow_services.h); an image on trial is left to resets. */
int sow_open(struct sow *s, const struct sow_config *cfg, const struct sow_options *opt, void *arena,
             uint32_t arena_size, uint32_t now);

/* An application-layer downlink. group: McGroupID, or SOW_UNICAST. Unknown ports and commands are ignored. */
void sow_downlink(struct sow *s, uint32_t now, uint8_t port, uint8_t group, const uint8_t *data, uint32_t len);

/* Run timers and one slice of work. *wake: when to call again (now: at once, SOW_NEVER: only after a downlink). */
int sow_poll(struct sow *s, uint32_t now, uint32_t *wake);

/* Take the next uplink that is due. SOW_DONE: *up is filled; SOW_OK: none due. An uplink taken is the
 * caller's; it is not repeated by the library unless the server asks again. */
int sow_uplink(struct sow *s, uint32_t now, struct sow_uplink *up);

/* The MAC has joined (or rejoined) the network. */
void sow_joined(struct sow *s, uint32_t now);

/* The application's verdict on the running image, of use while it is on trial. verdict SOW_CAUSE_OK confirms it
 * (subject to the policy); any other cause rejects it and calls port->reboot: that reset rolls it back. */
void sow_self_test(struct sow *s, uint32_t now, uint8_t verdict);

/* The largest uplink payload has changed, with the data rate; 11 .. 64 bytes, values outside are clipped. */
void sow_max_payload(struct sow *s, uint8_t bytes);

/* End of the class C multicast window that is open now, or `now` when none is: a class A uplink and its receive
 * windows cost the device a fragment, so the application should hold its own until then. */
uint32_t sow_quiet_until(const struct sow *s, uint32_t now);

/* GPS time now, or 0 while the clock is not synchronised. */
uint32_t sow_gps_time(const struct sow *s, uint32_t now);

#ifdef __cplusplus
}
#endif
#endif
