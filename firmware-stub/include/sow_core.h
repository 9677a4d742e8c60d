/* Reassembly, judgement and installation of one firmware update, without any radio protocol.
 *
 * A transport (LoRaWAN: sow.h; NB-IoT or a cable: directly) opens a session, feeds fragments, and calls
 * sow_core_work until it returns SOW_OK. State lives in flash; after any reset sow_core_open continues.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SOW_CORE_H
#define SOW_CORE_H

#include <stdint.h>

#include "sow_boot.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sow_matrix { SOW_MATRIX_V1 = 1, SOW_MATRIX_V2 = 2, SOW_MATRIX_V2_ABSOLUTE = 3 }; /* TS004 parity dialects */

/* What FragSessionSetupReq carries. */
struct sow_session {
    uint8_t index;       /* FragIndex 0..3 */
    uint8_t matrix;      /* enum sow_matrix */
    uint8_t mc_mask;     /* McGroupBitMask: groups that may feed this session */
    uint8_t ack_delay;   /* BlockAckDelay 0..7 */
    uint8_t ack_wanted;  /* AckReception (v2) */
    uint8_t frag_size;   /* bytes, 1..255 */
    uint8_t padding;     /* filler bytes at the end of the last uncoded fragment, < frag_size */
    uint8_t has_mic;     /* 1: session_cnt and mic are valid (v2) */
    uint16_t nb_frag;    /* uncoded fragments M, 1..16383 */
    uint16_t session_cnt;
    uint8_t descriptor[4];
    uint8_t mic[4];
};

struct sow_status {
    uint8_t exists;        /* a session is open under this index */
    uint8_t step;          /* enum sow_step */
    uint8_t cause;         /* enum sow_cause of a stop; SOW_CAUSE_OK while all is well */
    uint16_t detail;
    uint16_t received;     /* fragments received: uncoded, coded, repeated (TS004 NbFragReceived) */
    uint16_t missing;      /* independent fragments still needed; 0: block complete and proved, or mic_error */
    uint8_t memory_error;  /* more losses than flash can hold rows for */
    uint8_t mic_error;     /* block complete, session MIC wrong (v2) */
    struct sow_session session;
};

struct sow_image { /* the image waiting in slot B, for TS006 */
    uint8_t state;    /* 0 none, 1 corrupt or bad signature, 2 wrong hardware, 3 valid (TS006 UpImageStatus) */
    uint32_t version; /* of a valid one */
};

#include "sow_core_state.h" /* struct sow_core; private */

/* Bytes of arena that a session (and any patch of that RAM class) needs. */
uint32_t sow_core_arena_size(uint16_t nb_frag, uint8_t frag_size, uint32_t codec_ram);

/* Check port, map and identity, read the journal, resume what was under way. The arena is used until the
 * next open. Returns SOW_OK, SOW_MORE (call sow_core_work) or a negated cause. */
int sow_core_open(struct sow_core *c, const struct sow_config *cfg, void *arena, uint32_t arena_size);

/* Begin a session; one that exists is replaced, an image waiting in slot B is lost. sow_core_work then erases the
 * download area, and slot B where it must hold rows (struct sow_map), page by page; a fragment that comes earlier waits for it. The same session again (a
 * repeated request) is SOW_OK and loses nothing, unless it has stopped.
 * Refused with NO_RAM, NO_FLASH (also while slot B is needed: an install is pending, an image on trial),
 * INDEX_UNSUPPORTED, ALGO_UNSUPPORTED, SESSION_REPLAY, FLASH_IO, or the cause the consent callback gave. */
int sow_core_session(struct sow_core *c, const struct sow_session *s);

/* End the session of that index and forget its fragments; a block that has been verified is installed all the
 * same. -SOW_CAUSE_NO_SESSION if there is none. */
int sow_core_delete(struct sow_core *c, uint8_t index);

/* One fragment: n counts from 1, n > nb_frag is parity. Any order, gaps, duplicates. One slot write and one
 * row reduction at most. SOW_MORE, SOW_DONE when the block can be solved (then call sow_core_work), or a
 * negated cause; the session stays usable after an error. SOW_OK: the block is complete, nothing was needed.
 * A fragment of another size or number (0, > 16383) is ignored. */
int sow_core_fragment(struct sow_core *c, uint8_t index, uint16_t n, const uint8_t *data, uint32_t len);

/* One bounded slice of solving, verifying, patching. On a Cortex-M0+ a slice takes at most 0.5 million instructions
 * (15 ms at 32 MHz) and the time of one page erase, but for two: verifying the signature in software and the first
 * look of the patch decoder at the base take 25 million each (0.8 s). port->idle is called at least every 2.6 million
 * instructions, in every call of the library: a watchdog of a second holds down to 4 MHz. A fragment costs 6 thousand
 * instructions, a parity fragment as many for each fragment it covers or row it meets (50 thousand at M = 46);
 * sow_core_open reads every slot once, 3 thousand each. When no spare is left, a fragment may also erase two pages
 * for each page under its slot. Eight resets in a row that got the work no further stop it with NO_PROGRESS.
 * SOW_MORE: call again; SOW_OK: nothing to do, or put off by the consent callback (status.cause): call again
 * later, it is asked again; SOW_DONE: an image has just become ready; negative: stopped. */
int sow_core_work(struct sow_core *c);

int sow_core_status(const struct sow_core *c, uint8_t index, struct sow_status *out);
int sow_core_image(const struct sow_core *c, struct sow_image *out);

/* Throw the image of that version away. -SOW_CAUSE_NO_SESSION: no image, -SOW_CAUSE_IMAGE_INVALID: other version. */
int sow_core_image_delete(struct sow_core *c, uint32_t version);

/* Request the swap of a ready image at the next boot; the caller resets the device. */
int sow_core_install(struct sow_core *c);

/* Small values that outlive a reset, for the layers above. key < SOW_CORE_VALUES; the value is untouched unless SOW_OK.
 * -SOW_CAUSE_NO_SESSION: never put. */
int sow_core_kv_get(struct sow_core *c, uint8_t key, uint32_t *value);
int sow_core_kv_put(struct sow_core *c, uint8_t key, uint32_t value);

/* Tell the core the time, so that it can judge expiry; 0: unknown. GPS seconds. */
void sow_core_time(struct sow_core *c, uint32_t gps);

#ifdef __cplusplus
}
#endif
#endif
