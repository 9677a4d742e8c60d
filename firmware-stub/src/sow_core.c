/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <string.h>

#include "sow_core_private.h"
#include "sow_patch.h"

uint32_t sow_core_arena_size(uint16_t nb_frag, uint8_t frag_size, uint32_t codec_ram)
{
    uint32_t bitmap = sow_bitmap_size(nb_frag);
    uint32_t row = bitmap + sow_align(frag_size, 16);
    uint32_t codec = codec_ram != 0 ? sow_align(sizeof(struct sow_patch), 8) + codec_ram : 0;

    if (row < SOW_SCRATCH)
        row = SOW_SCRATCH;
    row += 2 * bitmap;
    return row > codec ? row : codec;
}

void sow_core_event(const struct sow_core *c, uint8_t step, uint8_t cause, uint16_t detail)
{
    const struct sow_port *port = c->cfg->port;

    if (port->event != 0)
        port->event(port->user, step, cause, detail);
}

int sow_core_save(struct sow_core *c)
{
    struct sow_core_record r = c->at;

    (void)sizeof(char[offsetof(struct sow_core_record, repair) + 2 == SOW_LOG_DATA ? 1 : -1]);
    r.flags &= SOW_FLAGS_KEPT;
    if (r.phase > SOW_CORE_STOP) /* of a phase in RAM: the flags have changed */
        r.phase = r.phase == SOW_CORE_HASH ? SOW_CORE_WRITE : SOW_CORE_COLLECT;
    return sow_log_put(&c->log, SOW_ID_PHASE, &r);
}

int sow_core_enter(struct sow_core *c, uint8_t phase)
{
    int err = SOW_OK;

    c->at.phase = phase;
    if (phase <= SOW_CORE_STOP) {
        if (phase != SOW_CORE_STOP) {
            c->at.cause = SOW_CAUSE_OK;
            c->at.detail = 0;
        }
        err = sow_core_save(c);
    }
    return err < 0 ? err : SOW_MORE;
}

int sow_core_progress(struct sow_core *c, uint32_t pages)
{
    if (c->progress.tries == 0 && c->progress.pages == pages)
        return SOW_OK;
    c->progress.pages = (uint16_t)pages;
    c->progress.tries = 0;
    return sow_log_put(&c->log, SOW_ID_PROGRESS, &c->progress);
}

int sow_core_stop(struct sow_core *c, uint8_t step, uint8_t cause)
{
    c->at.step = step;
    c->at.cause = cause;
    (void)sow_core_enter(c, SOW_CORE_STOP);
    sow_core_event(c, step, cause, c->at.detail);
    return -(int)cause;
}

int sow_core_consent(struct sow_core *c, uint8_t phase, uint32_t seconds)
{
    const struct sow_port *port = c->cfg->port;
    uint8_t cause = SOW_CAUSE_OK;
    int answer = SOW_CONSENT_YES;

    if (port->consent != 0)
        answer = port->consent(port->user, phase, seconds, &cause);
    if (answer == SOW_CONSENT_YES)
        return SOW_OK;
    if (cause == SOW_CAUSE_OK)
        cause = answer == SOW_CONSENT_LATER ? SOW_CAUSE_DEFERRED_USER : SOW_CAUSE_REFUSED;
    return -(int)cause;
}

/* Numbers in the journal. */
static int get(const struct sow_core *c, uint8_t id, uint32_t *value)
{
    uint32_t r[(SOW_LOG_DATA + 3u) / 4u];

    if (!sow_log_get(&c->log, id, r))
        return -SOW_CAUSE_NO_SESSION;
    *value = r[0];
    return SOW_OK;
}

static int put(struct sow_core *c, uint8_t id, uint32_t value)
{
    uint32_t r[(SOW_LOG_DATA + 3u) / 4u] = {value, 0, 0};

    return sow_log_put(&c->log, id, r);
}

int sow_core_kv_get(struct sow_core *c, uint8_t key, uint32_t *value)
{
    return key > 15 ? -SOW_CAUSE_NO_SESSION : get(c, key, value);
}

int sow_core_kv_put(struct sow_core *c, uint8_t key, uint32_t value)
{
    return key > 15 ? -SOW_CAUSE_NO_FLASH : put(c, key, value);
}

static int power_of_two(uint32_t n, uint32_t low, uint32_t high)
{
    return n >= low && n <= high && (n & (n - 1)) == 0;
}

/* Two areas of whole pages, each of that size at least. */
static int two_areas(const struct sow_port *port, const struct sow_region *r, uint32_t size)
{
    return (r->size / 2 & (0u - port->page)) >= size;
}

static int config_ok(const struct sow_config *cfg)
{
    const struct sow_port *p = cfg->port;
    const struct sow_map *m = cfg->map;
    const struct sow_region *r = &m->slot_a, *end = &m->scratch; /* the map is six of them in a row */

    (void)sizeof(char[sizeof *m == 6 * sizeof *r ? 1 : -1]);
    if (!power_of_two(p->granule, 1, 16) || !power_of_two(p->page, 128, 8192))
        return 0;
    for (; r <= end; r++)
        if (r->size == 0 || ((r->addr | r->size) & (p->page - 1)) != 0)
            return 0;
    return m->slot_a.size == m->slot_b.size && two_areas(p, &m->journal, SOW_CORE_JOURNAL) &&
           two_areas(p, &m->boot, SOW_CORE_BOOT);
}

static int session_ok(const struct sow_session *s)
{
    return s->index <= 3 && s->matrix >= SOW_MATRIX_V1 && s->matrix <= SOW_MATRIX_V2_ABSOLUTE && s->nb_frag != 0 &&
           s->nb_frag <= 16383 && s->padding < s->frag_size;
}

/* The session takes two records; the last byte of each says whose they are. */
static __attribute__((noinline, noclone)) int session_records(struct sow_core *c, int load)
{
    uint8_t r[SOW_LOG_DATA], *half = (uint8_t *)&c->session, owner = (uint8_t)(c->at.tag >> 4);
    int err;

    (void)sizeof(char[sizeof c->session == 2 * (SOW_LOG_DATA - 1u) ? 1 : -1]);
    for (uint8_t id = SOW_ID_SESSION; id <= SOW_ID_SESSION_2; id++, half += SOW_LOG_DATA - 1u) {
        if (load) {
            if (!sow_log_get(&c->log, id, r) || r[SOW_LOG_DATA - 1u] != owner)
                return -SOW_CAUSE_FLASH_DECAY;
            memcpy(half, r, SOW_LOG_DATA - 1u);
            continue;
        }
        memcpy(r, half, SOW_LOG_DATA - 1u);
        r[SOW_LOG_DATA - 1u] = owner;
        if ((err = sow_log_put(&c->log, id, r)) < 0)
            return err;
    }
    return SOW_OK;
}

/* Slot B is not ours while the stub may swap it back or has yet to swap it in. */
static int slot_b_taken(const struct sow_core *c)
{
    struct sow_boot_status boot;

    return sow_boot_read(c->cfg, &boot) == SOW_OK &&
           (boot.state == SOW_BOOT_PENDING || boot.state == SOW_BOOT_TRIAL);
}

/* A number that every request to the stub changes. */
static uint16_t requests(const struct sow_core *c)
{
    struct sow_log log;

    sow_log_open(&log, c->cfg, &c->cfg->map->boot, SOW_MANIFEST_SIZE);
    return (uint16_t)log.gen;
}

int sow_core_open(struct sow_core *c, const struct sow_config *cfg, void *arena, uint32_t arena_size)
{
    struct sow_manifest m;

    memset(c, 0, sizeof *c);
    c->cfg = cfg;
    c->arena = arena;
    c->arena_size = arena_size;
    if (!config_ok(cfg))
        return -SOW_CAUSE_NO_FLASH;
    if (arena == 0 || (uintptr_t)arena % 8 != 0)
        return -SOW_CAUSE_NO_RAM;
    sow_log_open(&c->log, cfg, &cfg->map->journal, 0);
    (void)sow_log_get(&c->log, SOW_ID_PROGRESS, &c->progress);
    if (!sow_log_get(&c->log, SOW_ID_PHASE, &c->at) || c->at.phase == SOW_CORE_NONE)
        return SOW_OK;
    if (session_records(c, 1) < 0 || !session_ok(&c->session) || c->at.phase > SOW_CORE_STOP) {
        c->at.phase = SOW_CORE_NONE;
        return SOW_OK;
    }
    if (c->at.phase == SOW_CORE_STOP)
        return SOW_OK;
    if (sow_core_arena_size(c->session.nb_frag, c->session.frag_size, 0) > arena_size) {
        (void)sow_core_stop(c, SOW_STEP_SETUP, SOW_CAUSE_NO_RAM);
        return SOW_OK;
    }
    sow_store_layout(c);
    if (c->at.phase == SOW_CORE_COLLECT)
        return sow_store_put_back(c) < 0 ? -SOW_CAUSE_FLASH_IO : sow_fec_resume(c);
    sow_store_find_spares(c);
    if (c->at.phase != SOW_CORE_READY && c->at.phase != SOW_CORE_INSTALL)
        return SOW_MORE;
    if (c->at.phase == SOW_CORE_INSTALL && c->at.detail == requests(c) && !slot_b_taken(c)) {
        c->at.phase = SOW_CORE_READY; /* cut before the request was made */
        c->at.detail = 0;
    }
    if (sow_manifest_read(c, &m) == SOW_OK)
        c->version = m.version;
    return SOW_OK;
}

static int exists(const struct sow_core *c)
{
    return c->at.phase != SOW_CORE_NONE && (c->at.flags & SOW_FLAG_DELETED) == 0;
}

static int replayed(const struct sow_core *c, const struct sow_session *s)
{
    uint32_t last;

    return s->has_mic && get(c, (uint8_t)(SOW_ID_COUNT + s->index), &last) == SOW_OK && s->session_cnt <= last;
}

/* SessionCnt is used up when the first fragment arrives (TS004-2.0.0 3.4). */
static int use_up_count(struct sow_core *c)
{
    const struct sow_session *s = &c->session;

    if (!s->has_mic || (c->at.flags & SOW_FLAG_COUNTED) != 0)
        return SOW_OK;
    if (put(c, (uint8_t)(SOW_ID_COUNT + s->index), s->session_cnt) < 0)
        return -SOW_CAUSE_FLASH_IO;
    c->at.flags |= SOW_FLAG_COUNTED;
    return SOW_OK;
}

int sow_core_session(struct sow_core *c, const struct sow_session *s)
{
    struct sow_session old = c->session;
    int err;

    if (s->index > 3)
        return -SOW_CAUSE_INDEX_UNSUPPORTED;
    if (!session_ok(s))
        return -SOW_CAUSE_ALGO_UNSUPPORTED;
    if (exists(c) && c->at.phase != SOW_CORE_STOP && memcmp(&c->session, s, sizeof *s) == 0 &&
        (c->at.phase != SOW_CORE_INSTALL || slot_b_taken(c)))
        return SOW_OK;
    if (replayed(c, s))
        return -SOW_CAUSE_SESSION_REPLAY;
    if (sow_core_arena_size(s->nb_frag, s->frag_size, 0) > c->arena_size)
        return -SOW_CAUSE_NO_RAM;
    if (slot_b_taken(c))
        return -SOW_CAUSE_NO_FLASH;
    c->session = *s;
    sow_store_layout(c);
    err = sow_store_size(c) > c->cfg->map->download.size ? -SOW_CAUSE_NO_FLASH : SOW_OK;
    if (err < 0 || (err = sow_core_consent(c, SOW_PHASE_RECEIVE, 2u * s->nb_frag)) < 0) {
        c->session = old;
        sow_store_layout(c);
        return err;
    }
    /* From here on a cut leaves no session: the records of the new one do not go with the old phase. */
    c->at.phase = SOW_CORE_NONE;
    c->at.flags = 0;
    c->at.freeze = 0;
    memset(c->at.repair, 0, sizeof c->at.repair);
    c->at.tag = (uint16_t)(c->at.tag + 16u); /* room for the tags of rows */
    c->pos = 0;
    c->received = 0;
    c->judge = 0;
    c->recheck = 0;
    c->version = 0;
    if ((err = session_records(c, 0)) < 0 || (err = sow_core_progress(c, 0)) < 0 ||
        (err = sow_core_enter(c, SOW_CORE_ERASE)) < 0) {
        c->at.phase = SOW_CORE_NONE;
        return err;
    }
    return SOW_OK;
}

static int forget(struct sow_core *c)
{
    int err;

    c->at.flags = 0;
    err = sow_core_enter(c, SOW_CORE_NONE);
    return err < 0 ? err : SOW_OK;
}

int sow_core_delete(struct sow_core *c, uint8_t index)
{
    if (!exists(c) || c->session.index != index)
        return -SOW_CAUSE_NO_SESSION;
    if (c->at.phase == SOW_CORE_WRITE || c->at.phase == SOW_CORE_HASH || c->at.phase == SOW_CORE_READY ||
        c->at.phase == SOW_CORE_INSTALL || c->at.phase == SOW_CORE_ASK) {
        c->at.flags |= SOW_FLAG_DELETED; /* the block is complete and good: go on without the session */
        return sow_core_save(c);
    }
    return forget(c);
}

/* Erase the next page of the download area, and of slot B if it is to hold rows; or, to thaw, of the rows. */
static int erase_slice(struct sow_core *c)
{
    const struct sow_map *map = c->cfg->map;
    const struct sow_region *r = &c->rows;
    uint32_t at = c->pos++ * c->cfg->port->page;
    int err;

    if (c->at.phase == SOW_CORE_ERASE) {
        if (at < map->download.size || r->addr != map->slot_b.addr)
            r = &map->download;
        else
            at -= map->download.size;
    }
    if (at < r->size) {
        if (sow_flash_erase(c->cfg, r->addr + at) < 0)
            return sow_core_stop(c, SOW_STEP_SETUP, SOW_CAUSE_FLASH_IO);
        return SOW_MORE;
    }
    if ((err = sow_core_enter(c, SOW_CORE_COLLECT)) < 0)
        return err;
    return sow_fec_resume(c);
}

int sow_core_fragment(struct sow_core *c, uint8_t index, uint16_t n, const uint8_t *data, uint32_t len)
{
    int err;

    if (!exists(c) || c->session.index != index)
        return -SOW_CAUSE_NO_SESSION;
    if (c->at.phase == SOW_CORE_STOP)
        return -(int)c->at.cause;
    if (n == 0 || n > 16383 || len != c->session.frag_size)
        return SOW_MORE;
    while (c->at.phase == SOW_CORE_ERASE || c->at.phase == SOW_CORE_THAW)
        if ((err = erase_slice(c)) < 0)
            return err;
    if (c->at.phase != SOW_CORE_COLLECT)
        return SOW_OK;
    if ((err = use_up_count(c)) < 0 || (err = sow_core_progress(c, 0)) < 0)
        return err;
    if (c->received < 16383)
        c->received++;
    c->pos = 0; /* of a digest under way: its state is overwritten */
    return sow_fec_fragment(c, n, data);
}

/* What a phase is to the server. */
static const uint8_t step_of[] = {
    SOW_STEP_NONE,   SOW_STEP_SETUP,    SOW_STEP_RECEIVE, SOW_STEP_RECEIVE, SOW_STEP_PATCH,
    SOW_STEP_READY,  SOW_STEP_INSTALL,  SOW_STEP_NONE,    SOW_STEP_VERIFY,  SOW_STEP_VERIFY,
    SOW_STEP_VERIFY, SOW_STEP_MANIFEST, SOW_STEP_VERIFY,  SOW_STEP_PATCH,   SOW_STEP_PATCH};

/* Stop for that cause, unless the block has rotted since it was checked. */
static int doubt(struct sow_core *c, uint8_t cause)
{
    c->recheck = cause;
    c->pos = 0;
    return sow_core_enter(c, SOW_CORE_CHECK);
}

static int work_check(struct sow_core *c)
{
    int err = sow_fec_check(c);

    if (err != SOW_DONE)
        return err;
    if (c->recheck != 0) {
        if (c->recheck == SOW_CAUSE_SESSION_MIC_BAD)
            c->at.flags |= SOW_FLAG_MIC_BAD;
        return sow_core_stop(c, c->at.step, c->recheck);
    }
    return sow_core_enter(c, SOW_CORE_MIC);
}

static __attribute__((noinline)) int work_ask(struct sow_core *c)
{
    struct sow_manifest m;
    int err = sow_manifest_read(c, &m);

    if (err == SOW_OK)
        err = sow_core_progress(c, 0); /* resets while the answer is "later" are no failures */
    if (err == SOW_OK)
        err = sow_core_consent(c, SOW_PHASE_PATCH, m.new_size / 1024u + 1u);
    if (err == SOW_OK) {
        c->pos = 0;
        return sow_write_begin(c);
    }
    if (err == -SOW_CAUSE_DEFERRED_USER || err == -SOW_CAUSE_DEFERRED_BATTERY) {
        c->at.cause = (uint8_t)-err; /* asked again by the next call */
        return SOW_OK;
    }
    return sow_core_stop(c, SOW_STEP_PATCH, (uint8_t)-err);
}

/* What follows a step that has run to its end, and what an error in it means. */
static int next(struct sow_core *c, int err, uint8_t phase, uint8_t step)
{
    if (err == SOW_MORE)
        return SOW_MORE;
    c->judge = 0;
    c->pos = 0;
    if (err >= 0)
        return sow_core_enter(c, phase);
    c->at.step = step;
    return doubt(c, (uint8_t)-err);
}

/* Before long work: count that it was started, once after each reset. */
static int start(struct sow_core *c)
{
    if ((c->at.flags & SOW_FLAG_TRIED) != 0)
        return SOW_OK;
    if (c->progress.tries >= SOW_CORE_TRIES)
        return -SOW_CAUSE_NO_PROGRESS;
    c->at.flags |= SOW_FLAG_TRIED;
    c->progress.tries++;
    return sow_log_put(&c->log, SOW_ID_PROGRESS, &c->progress);
}

/* Judge the manifest while fragments still come in. */
static int work_early(struct sow_core *c)
{
    int err = start(c);

    if (err == SOW_OK && (err = sow_judge(c)) == SOW_MORE)
        return SOW_MORE;
    if (err < 0)
        return sow_core_stop(c, SOW_STEP_MANIFEST, (uint8_t)-err);
    c->at.flags |= SOW_FLAG_JUDGED;
    err = sow_core_progress(c, 0);
    return err < 0 ? err : sow_core_save(c);
}

int sow_core_work(struct sow_core *c)
{
    int err;

    switch (c->at.phase) {
    case SOW_CORE_NONE:
    case SOW_CORE_READY:
    case SOW_CORE_INSTALL:
    case SOW_CORE_STOP:
        return SOW_OK;
    case SOW_CORE_ERASE:
    case SOW_CORE_THAW:
        return erase_slice(c);
    case SOW_CORE_COLLECT:
        if ((c->at.flags & SOW_FLAG_JUDGED) != 0 || !sow_fec_head_known(c, SOW_MANIFEST_SIZE))
            return SOW_OK;
        return work_early(c);
    default:
        if ((err = start(c)) < 0)
            return sow_core_stop(c, step_of[c->at.phase], (uint8_t)-err);
    }
    switch (c->at.phase) {
    case SOW_CORE_SOLVE:
        return sow_fec_solve(c);
    case SOW_CORE_CHECK:
        return work_check(c);
    case SOW_CORE_MIC:
        return next(c, sow_mic(c), SOW_CORE_JUDGE, SOW_STEP_VERIFY);
    case SOW_CORE_JUDGE:
        return next(c, sow_judge(c), SOW_CORE_DIGEST, SOW_STEP_MANIFEST);
    case SOW_CORE_DIGEST:
        return next(c, sow_digest_payload(c), SOW_CORE_ASK, SOW_STEP_VERIFY);
    case SOW_CORE_ASK:
        return work_ask(c);
    case SOW_CORE_WRITE:
        return next(c, sow_write(c), SOW_CORE_HASH, SOW_STEP_PATCH);
    default:
        err = next(c, sow_write_hash(c), SOW_CORE_READY, SOW_STEP_PATCH);
        return c->at.phase == SOW_CORE_READY && err >= 0 ? SOW_DONE : err;
    }
}

static void boot_step(const struct sow_core *c, struct sow_status *out)
{
    static const uint8_t step[] = {SOW_STEP_NONE,    SOW_STEP_INSTALL, SOW_STEP_TRIAL,
                                   SOW_STEP_RUNNING, SOW_STEP_TRIAL,   SOW_STEP_INSTALL};
    struct sow_boot_status boot;

    if (sow_boot_read(c->cfg, &boot) != SOW_OK || boot.state >= sizeof step)
        return;
    out->step = step[boot.state];
    out->cause = boot.cause;
    out->detail = 0;
}

int sow_core_status(const struct sow_core *c, uint8_t index, struct sow_status *out)
{
    /* Nothing says "complete" before the block is proved. */
    const uint32_t unproved = 1u << SOW_CORE_THAW | 1u << SOW_CORE_STOP | 1u << SOW_CORE_SOLVE | 1u << SOW_CORE_CHECK |
                              1u << SOW_CORE_MIC | 1u << SOW_CORE_JUDGE | 1u << SOW_CORE_DIGEST;
    uint8_t phase = c->at.phase;

    memset(out, 0, sizeof *out);
    out->exists = (uint8_t)(exists(c) && c->session.index == index);
    out->session = c->session;
    out->step = phase == SOW_CORE_STOP ? c->at.step : step_of[phase];
    out->cause = c->at.cause;
    out->detail = c->at.detail;
    out->received = c->received;
    out->memory_error = (c->at.flags & SOW_FLAG_NO_ROWS) != 0;
    out->mic_error = (c->at.flags & SOW_FLAG_MIC_BAD) != 0;
    if (phase == SOW_CORE_ERASE)
        out->missing = c->session.nb_frag;
    else if (phase == SOW_CORE_COLLECT)
        out->missing = (uint16_t)(c->lost - c->rank);
    else if ((unproved >> phase & 1u) != 0)
        out->missing = !out->mic_error;
    if (phase == SOW_CORE_NONE || phase == SOW_CORE_INSTALL)
        boot_step(c, out);
    return SOW_OK;
}

int sow_core_image(const struct sow_core *c, struct sow_image *out)
{
    out->state = 0;
    out->version = 0;
    if (c->at.phase == SOW_CORE_READY || (c->at.phase == SOW_CORE_INSTALL && slot_b_taken(c))) {
        out->state = 3;
        out->version = c->version;
    } else if (c->at.phase == SOW_CORE_STOP) {
        if (c->at.cause == SOW_CAUSE_CLASS_MISMATCH || c->at.cause == SOW_CAUSE_HARDWARE_MISMATCH)
            out->state = 2;
        else if (c->at.step == SOW_STEP_VERIFY || c->at.step == SOW_STEP_PATCH || c->at.cause == SOW_CAUSE_SIGNATURE_BAD ||
                 c->at.cause == SOW_CAUSE_KEY_UNKNOWN)
            out->state = 1;
    }
    return SOW_OK;
}

int sow_core_image_delete(struct sow_core *c, uint32_t version)
{
    if (c->at.phase != SOW_CORE_READY)
        return -SOW_CAUSE_NO_SESSION;
    if (c->version != version)
        return -SOW_CAUSE_IMAGE_INVALID;
    return forget(c);
}

int sow_core_install(struct sow_core *c)
{
    uint8_t raw[SOW_MANIFEST_SIZE];
    int err;

    if (c->at.phase == SOW_CORE_INSTALL && slot_b_taken(c))
        return SOW_OK;
    if (c->at.phase != SOW_CORE_READY)
        return -SOW_CAUSE_NO_SESSION;
    if ((err = sow_core_consent(c, SOW_PHASE_SWAP, c->cfg->map->slot_a.size / 4096u + 5u)) < 0) {
        if (err == -SOW_CAUSE_DEFERRED_USER || err == -SOW_CAUSE_DEFERRED_BATTERY)
            c->at.cause = (uint8_t)-err;
        else
            (void)sow_core_stop(c, SOW_STEP_INSTALL, (uint8_t)-err);
        return err;
    }
    for (uint32_t i = 0; i * c->session.frag_size < SOW_MANIFEST_SIZE; i++)
        if (sow_slot_xor(c, (uint16_t)i, 0) < 0) {
            (void)sow_fec_thaw(c);
            return -SOW_CAUSE_FLASH_DECAY;
        }
    if ((err = sow_block_read(c, 0, raw, sizeof raw)) < 0)
        return err;
    /* First the intent, or a cut would leave an image that is installed and still waits to be. */
    c->at.phase = SOW_CORE_INSTALL;
    c->at.cause = SOW_CAUSE_OK;
    c->at.detail = requests(c);
    if ((err = sow_core_save(c)) < 0 || (err = sow_boot_request(c->cfg, raw)) < 0)
        (void)sow_core_enter(c, SOW_CORE_READY);
    return err;
}

void sow_core_time(struct sow_core *c, uint32_t gps)
{
    c->gps = gps;
}
