/* Device side of the modem protocol (docs/spec/modem.md): the library of sow.h behind a byte stream.
 *
 * The host owns the MAC and the clock. It sends one frame; the shell runs the library until nothing is due and
 * ends the turn with IDLE_UNTIL. The same shell serves a device compiled into a host program and a firmware on a
 * board or under an emulator.
 *
 *     sow_modem_init(&m, &config, &options, &app, arena, sizeof arena, write, user);
 *     for (;;) {
 *         n = read(buf);
 *         sow_modem_input(&m, buf, n);
 *         if (m.reset_wanted) system_reset();        // or: boot stub, then sow_modem_init again
 *     }
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_MODEM_H
#define SOW_MODEM_H

#include <stdint.h>

#include "sow.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOW_MODEM_SYNC 0xa5u
#define SOW_MODEM_MAX_PAYLOAD 320u
#define SOW_MODEM_OVERHEAD 6u /* sync, type, length 2, CRC 2 */

enum sow_modem_type {
    SOW_MODEM_TICK = 0x01,
    SOW_MODEM_DOWN = 0x02,
    SOW_MODEM_LINK = 0x03,
    SOW_MODEM_RESET_REQ = 0x04,
    SOW_MODEM_IDLE_UNTIL = 0x81,
    SOW_MODEM_UP = 0x82,
    SOW_MODEM_SET_MC_GROUP = 0x83,
    SOW_MODEM_SESSION = 0x84,
    SOW_MODEM_CONSOLE = 0x85,
    SOW_MODEM_RESET = 0x86,
    SOW_MODEM_EVENT = 0x87
};

enum sow_modem_reset {
    SOW_MODEM_RESET_ASKED = 0,
    SOW_MODEM_RESET_INSTALL = 1,
    SOW_MODEM_RESET_WATCHDOG = 2,
    SOW_MODEM_RESET_FAULT = 3
};

struct sow_modem;

/* The application. Its one uplink of its own is the heartbeat (port 2: FWversion u32, resets u16, little
 * endian): a class A device hears nothing unless it speaks. */
struct sow_modem_app {
    void *user;
    /* Called once after sow_open: judge the running image and call sow_self_test(&m->s, ...).
     * NULL: every image passes. */
    void (*boot)(void *user, struct sow_modem *m, uint32_t now);
    /* Called in every turn, may call sow_modem_uplink; returns the second of its next turn, SOW_NEVER: none.
     * May be NULL. */
    uint32_t (*poll)(void *user, struct sow_modem *m, uint32_t now);
    uint32_t heartbeat; /* seconds between heartbeats; 0: none */
};

struct sow_modem {
    struct sow s;
    struct sow_port port; /* the integrator's, with the calls that become frames replaced */
    const struct sow_port *inner;
    struct sow_config cfg;
    struct sow_options opt;
    struct sow_modem_app app;
    void *arena;
    void (*write)(void *user, const uint8_t *bytes, uint32_t n);
    void *write_user;
    uint64_t now_ms;
    uint32_t arena_size;
    uint32_t next_heartbeat;
    uint32_t resets;      /* since the journal was first written */
    uint16_t fill;        /* bytes in frame */
    uint8_t opened;       /* sow_open has been called */
    uint8_t open_failed;  /* ... and failed with this cause */
    uint8_t reset_wanted; /* the caller must reset the device; all further input is ignored */
    uint8_t beating;      /* next_heartbeat is set */
    uint8_t frame[SOW_MODEM_MAX_PAYLOAD + SOW_MODEM_OVERHEAD];
};

/* Start after a reset: write the console banner and IDLE_UNTIL 0, which asks for a frame at once: only frames
 * carry the time, so the library is opened by the first of them. cfg, opt and app are copied; the port and all
 * that they point to must outlive m. port->user goes to the integrator's own callbacks unchanged; mc_group,
 * mc_session, reboot and event of the port are not used. */
void sow_modem_init(struct sow_modem *m, const struct sow_config *cfg, const struct sow_options *opt,
                    const struct sow_modem_app *app, void *arena, uint32_t arena_size,
                    void (*write)(void *user, const uint8_t *bytes, uint32_t n), void *user);

/* Bytes from the host, in any pieces. Every complete frame runs one turn before the call returns. */
void sow_modem_input(struct sow_modem *m, const uint8_t *bytes, uint32_t n);

/* From the application hooks. */
void sow_modem_uplink(struct sow_modem *m, uint8_t port, const uint8_t *data, uint32_t len);
void sow_modem_console(struct sow_modem *m, const char *text);

/* One frame to m->write. payload may be NULL with n 0. */
void sow_modem_send(struct sow_modem *m, uint8_t type, const void *payload, uint32_t n);

/* CRC-16/CCITT-FALSE, continued: start with 0xffff. */
uint16_t sow_modem_crc(uint16_t crc, const uint8_t *p, uint32_t n);

#ifdef __cplusplus
}
#endif
#endif
