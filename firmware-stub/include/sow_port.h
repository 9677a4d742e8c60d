/* sower device library: what the integrator supplies.
 *
 * One port (flash, radio, keys, consent), one flash map, one identity. The library allocates nothing, keeps
 * no globals and calls the port from the caller's own context; flash is the only truth it relies on.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_PORT_H
#define SOW_PORT_H

#include <stdint.h>

#include "sow_cause.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every function of the library returns one of these, or the negated cause that stopped it
 * (-SOW_CAUSE_BASE_MISMATCH ...), so that the code the caller sees is the code the server reads. */
enum sow_code {
    SOW_OK = 0,   /* done, nothing left to do */
    SOW_MORE = 1, /* accepted; more input or another slice of work is needed */
    SOW_DONE = 2  /* this call completed the thing: the block, the image */
};

enum sow_phase { /* what the port is asked to consent to */
    SOW_PHASE_RECEIVE = 1,
    SOW_PHASE_PATCH = 2,
    SOW_PHASE_SWAP = 3
};

enum sow_consent { SOW_CONSENT_YES = 0, SOW_CONSENT_LATER = 1, SOW_CONSENT_NO = 2 };

#define SOW_UNICAST 0xffu /* "multicast group" of a unicast downlink */

struct sow_mc_group {
    uint8_t id;           /* McGroupID 0..3 */
    uint8_t defined;      /* 0: forget the group, the other fields are void */
    uint32_t addr;        /* McAddr */
    uint8_t app_s_key[16]; /* McAppSKey */
    uint8_t nwk_s_key[16]; /* McNwkSKey */
    uint32_t min_fcnt;    /* valid frames: min_fcnt <= FCnt < max_fcnt */
    uint32_t max_fcnt;
};

struct sow_mc_session {
    uint8_t id;          /* McGroupID */
    char device_class;   /* 'B' or 'C' */
    uint8_t dr;          /* data rate index of the region, downlink */
    uint8_t periodicity; /* class B: ping-slot periodicity 0..7 */
    uint32_t frequency;  /* Hz */
    uint32_t start;      /* device seconds (sow_poll's `now`) at which the window opens; start == end: cancel */
    uint32_t end;
};

/* Flash addresses are absolute in whatever space the port understands. Callbacks return 0 or a negative
 * number; a failed program means that its granules are unusable until the next erase. */
struct sow_port {
    void *user; /* handed back untouched */

    int (*read)(void *user, uint32_t addr, void *buf, uint32_t len);        /* <0 also for an ECC error */
    int (*prog)(void *user, uint32_t addr, const void *buf, uint32_t len);  /* whole granules, each once per erase */
    int (*erase)(void *user, uint32_t addr, uint32_t len);                  /* whole pages */

    /* Verify an ECDSA P-256 signature r|s (big endian) over a SHA-256 hash with the key of that id.
     * 0: valid, negative: not. NULL: the software verifier and the keys of sow_identity. */
    int (*verify)(void *user, uint8_t key_id, const uint8_t hash[32], const uint8_t sig[64]);

    /* Encrypt one AES-128 block. key NULL means the root key of TS005/TS004: GenAppKey (LoRaWAN 1.0.x) or
     * AppKey (1.1), which may live in a secure element. NULL: the software cipher and sow_identity.root_key. */
    int (*aes)(void *user, const uint8_t *key, const uint8_t in[16], uint8_t out[16]);

    /* Hand a group or a receive window to the MAC. NULL: unicast only. */
    void (*mc_group)(void *user, const struct sow_mc_group *group);
    void (*mc_session)(void *user, const struct sow_mc_session *session);

    /* May this phase begin? seconds is its estimated length. *cause may be set to a deferral or refusal
     * cause. NULL: always yes. */
    int (*consent)(void *user, uint8_t phase, uint32_t seconds, uint8_t *cause);

    uint32_t (*random)(void *user);                /* any 32 bits; spreads answers in time */
    void (*reboot)(void *user);                    /* reset the device; may return when the reset comes later */
    void (*event)(void *user, uint8_t step, uint8_t cause, uint16_t detail); /* for a log; may be NULL */
    void (*idle)(void *user);                      /* watchdog; called between flash operations; may be NULL */

    uint32_t granule;    /* smallest programmable unit in bytes: 1, 2, 4, 8 or 16 */
    uint32_t page;       /* smallest erasable unit in bytes, a power of two, 128 .. 8192 */
    uint8_t erase_value; /* what an erased byte reads: 0xff or 0x00 */
};

struct sow_region {
    uint32_t addr; /* first byte, at a page boundary */
    uint32_t size; /* bytes, whole pages */
};

/* Slot A and slot B have one size; an image and its MCUboot trailer fit one slot.
 *
 * A session of M fragments of S bytes takes 6 (M/8 + 8) + (M + 8)(S + 8) bytes of the download area, each number
 * rounded up to granules of at least 4 bytes. If another (M + 8)(M/8 + S + 8) bytes follow from the next page on,
 * rows lie there, and slot B is neither erased nor written before the manifest has verified and the block has its
 * digest. If not, rows borrow slot B: it is then erased when the session is set up and written when parity
 * arrives, both before anything is verified. What lies there is of no use to the boot stub, which boots nothing
 * from slot B but what a verified manifest describes; but an old image that was kept there is gone. */
struct sow_map {
    struct sow_region slot_a;   /* executes from here, always */
    struct sow_region slot_b;   /* receives the new image */
    struct sow_region download; /* session header, fragments, spares, FEC rows */
    struct sow_region journal;  /* >= 2 pages: what the library must remember */
    struct sow_region boot;     /* >= 2 pages: the boot request and the progress of the swap, shared with the stub */
    struct sow_region scratch;  /* >= 1 page: swap pages, segment map of a patch */
};

struct sow_key {
    uint8_t id;      /* key id of the manifest; 0 marks an empty trust slot */
    uint8_t pub[64]; /* P-256 public key X|Y, big endian */
};

struct sow_identity {
    uint32_t class_id;     /* device class a bundle must name */
    uint16_t hardware_id;  /* hardware a bundle must name */
    uint32_t hw_version;   /* TS006 HWversion */
    uint8_t root_key[16];  /* GenAppKey or AppKey; unused with a port->aes that has its own */
    uint8_t lorawan_11;    /* 1: key ladders of LoRaWAN 1.1, 0: of 1.0.x */
    struct sow_key keys[2]; /* two trust slots, for rotation */
};

struct sow_config {
    const struct sow_port *port;
    const struct sow_map *map;
    const struct sow_identity *identity;
};

#ifdef __cplusplus
}
#endif
#endif
