/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_core_private.h"
#include "sow_patch.h"
#include "sow_services.h"

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
    const struct sow_port *port = c->log.cfg->port;

    if (port->event != 0)
        port->event(port->user, step, cause, detail);
}

int sow_core_save(struct sow_core *c)
{
    return sow_log_put(&c->log, &c->at, sizeof c->at, 0);
}

/* What a phase is in the journal. */
static __attribute__((noinline)) uint8_t kept(uint8_t phase)
{
    return phase >= SOW_CORE_SOLVE && phase <= SOW_CORE_ASK ? SOW_CORE_COLLECT : phase;
}

int sow_core_enter(struct sow_core *c, uint8_t phase)
{
    uint8_t old = kept(c->at.phase);
    int err = SOW_OK;

    c->at.phase = phase;
    c->pos = 0;
    c->at.judge = 0;
    if (kept(phase) != old) {
        if (phase != SOW_CORE_STOP)
            c->at.cause = SOW_CAUSE_OK;
        err = sow_core_save(c);
    }
    return err < 0 ? err : SOW_MORE;
}

int sow_core_progress(struct sow_core *c, uint32_t done)
{
    if (c->at.tries == 0 && c->at.done == done)
        return SOW_OK;
    c->at.done = done;
    c->at.tries = 0;
    return sow_core_save(c);
}

int sow_core_stop(struct sow_core *c, uint8_t step, int err)
{
    c->at.step = step;
    c->at.cause = (uint8_t)-err;
    (void)sow_core_enter(c, SOW_CORE_STOP);
    sow_core_event(c, step, c->at.cause, 0);
    return err;
}

/* Consent to a phase: SOW_OK or a negated cause. Put off, the status says so; refused, the session stops. Before a
 * session only its request is refused. */
static int ask(struct sow_core *c, uint8_t phase, uint8_t step, uint32_t seconds)
{
    const struct sow_port *port = c->log.cfg->port;
    uint8_t cause = SOW_CAUSE_OK;
    int answer = SOW_CONSENT_YES;

    if (port->consent != 0)
        answer = port->consent(port->user, phase, seconds, &cause);
    if (answer == SOW_CONSENT_YES)
        return SOW_OK;
    if (cause == SOW_CAUSE_OK)
        cause = answer == SOW_CONSENT_LATER ? SOW_CAUSE_DEFERRED_USER : SOW_CAUSE_REFUSED;
    if (phase == SOW_PHASE_RECEIVE)
        return -(int)cause;
    if (cause != SOW_CAUSE_DEFERRED_USER && cause != SOW_CAUSE_DEFERRED_BATTERY)
        return sow_core_stop(c, step, -(int)cause);
    c->at.cause = cause; /* put off */
    return -(int)cause;
}

int sow_core_kv_get(struct sow_core *c, uint8_t key, uint32_t *value)
{
    if (key >= SOW_CORE_VALUES || (c->at.known & 1u << key) == 0)
        return -SOW_CAUSE_NO_SESSION;
    *value = c->at.value[key];
    return SOW_OK;
}

int sow_core_kv_put(struct sow_core *c, uint8_t key, uint32_t value)
{
    if (key >= SOW_CORE_VALUES)
        return -SOW_CAUSE_NO_FLASH;
    c->at.value[key] = value;
    c->at.known = (uint8_t)(c->at.known | 1u << key);
    return sow_core_save(c);
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
    for (; r <= end; r++)
        if (r->size == 0 || ((r->addr | r->size) & (p->page - 1)) != 0)
            return 0;
    return power_of_two(p->granule, 1, 16) && power_of_two(p->page, 128, 8192) && m->slot_a.size == m->slot_b.size && two_areas(p, &m->journal, SOW_CORE_JOURNAL) &&
           two_areas(p, &m->boot, SOW_CORE_BOOT);
}

static int session_ok(const struct sow_session *s)
{
    return s->index <= 3 && s->matrix >= SOW_MATRIX_V1 && s->matrix <= SOW_MATRIX_V2_ABSOLUTE && s->nb_frag != 0 &&
           s->nb_frag <= 16383 && s->padding < s->frag_size;
}

static int arena_holds(const struct sow_core *c, const struct sow_session *s)
{
    return sow_core_arena_size(s->nb_frag, s->frag_size, 0) <= c->arena_size;
}

/* Slot B is not ours while the stub may swap it back or has yet to swap it in. */
static __attribute__((noinline)) int slot_b_taken(const struct sow_core *c, struct sow_boot_status *boot)
{
    (void)sow_boot_read(c->log.cfg, boot); /* which cannot fail */
    return boot->state == SOW_BOOT_PENDING || boot->state == SOW_BOOT_TRIAL;
}

/* An image was requested, and the stub has not refused it or taken it back. */
static int installing(const struct sow_core *c)
{
    struct sow_boot_status boot;

    return c->at.phase == SOW_CORE_INSTALL && slot_b_taken(c, &boot);
}

int sow_core_open(struct sow_core *c, const struct sow_config *cfg, void *arena, uint32_t arena_size)
{
    struct sow_boot_status boot;
    int err;

    (void)sizeof(char[sizeof c->at == SOW_LOG_RECORD ? 1 : -1]);
    memset(c, 0, sizeof *c);
    c->arena = arena;
    c->arena_size = (uint16_t)(arena_size < 0xffffu ? arena_size : 0xffffu);
    c->log.cfg = cfg;
    c->log.region = &cfg->map->journal;
    if ((err = sow_services_check()) < 0)
        return err;
    if (!config_ok(cfg))
        return -SOW_CAUSE_NO_FLASH;
    if (arena == 0 || (uintptr_t)arena % 8 != 0)
        return -SOW_CAUSE_NO_RAM;
    sow_log_load(&c->log, &c->at, sizeof c->at);
    c->at.phase = kept(c->at.phase);
    c->at.flags &= SOW_FLAGS_KEPT;
    c->at.judge = 0;
    if (c->at.phase == SOW_CORE_NONE || c->at.phase == SOW_CORE_STOP)
        return SOW_OK;
    c->at.cause = SOW_CAUSE_OK; /* what was put off is asked for again */
    if (!arena_holds(c, &c->at.session)) {
        (void)sow_core_stop(c, SOW_STEP_SETUP, -SOW_CAUSE_NO_RAM);
        return SOW_OK;
    }
    sow_store_layout(c);
    if (c->at.phase == SOW_CORE_COLLECT) {
        err = sow_store_put_back(c);
        return err < 0 ? err : sow_fec_resume(c);
    }
    sow_store_find_spares(c, SOW_DATA);
    if (c->at.phase == SOW_CORE_INSTALL && !slot_b_taken(c, &boot) && boot.requests == c->at.requests)
        c->at.phase = SOW_CORE_READY; /* cut before the request was made */
    return c->at.phase >= SOW_CORE_READY ? SOW_OK : SOW_MORE;
}

static int exists(const struct sow_core *c, uint8_t index)
{
    return c->at.phase != SOW_CORE_NONE && (c->at.flags & SOW_FLAG_DELETED) == 0 && c->at.session.index == index;
}

/* The journal has a SessionCnt of that index. */
static uint32_t counted(const struct sow_session *s)
{
    return 1u << (SOW_CORE_VALUES + s->index);
}

/* SessionCnt is used up when the first fragment arrives (TS004-2.0.0 3.4). */
static int use_up_count(struct sow_core *c)
{
    const struct sow_session *s = &c->at.session;
    uint16_t *count = &c->at.count[s->index];

    if (!s->has_mic || ((c->at.known & counted(s)) != 0 && *count == s->session_cnt))
        return SOW_OK;
    c->at.known = (uint8_t)(c->at.known | counted(s));
    *count = s->session_cnt;
    return sow_core_save(c);
}

int sow_core_session(struct sow_core *c, const struct sow_session *s)
{
    struct sow_boot_status boot;
    struct sow_core new = *c;
    int taken, err;

    if (s->index > 3)
        return -SOW_CAUSE_INDEX_UNSUPPORTED;
    if (!session_ok(s))
        return -SOW_CAUSE_ALGO_UNSUPPORTED;
    taken = slot_b_taken(c, &boot);
    if (exists(c, s->index) && c->at.phase != SOW_CORE_STOP && memcmp(&c->at.session, s, sizeof *s) == 0 &&
        (c->at.phase != SOW_CORE_INSTALL || taken))
        return SOW_OK;
    if (s->has_mic && (c->at.known & counted(s)) != 0 && s->session_cnt <= c->at.count[s->index])
        return -SOW_CAUSE_SESSION_REPLAY;
    if (!arena_holds(c, s))
        return -SOW_CAUSE_NO_RAM;
    new.at.session = *s;
    sow_store_layout(&new);
    if (taken || sow_store_size(&new) > c->log.cfg->map->download.size)
        return -SOW_CAUSE_NO_FLASH;
    if ((err = ask(c, SOW_PHASE_RECEIVE, SOW_STEP_SETUP, 2u * s->nb_frag)) < 0)
        return err;
    new.at.phase = SOW_CORE_NONE;
    new.at.flags = 0;
    new.at.freeze = 0;
    new.at.tries = 0;
    new.at.done = 0;
    new.at.repair = 0;
    new.at.tag = (uint16_t)(c->at.tag + 16u); /* room for the tags of rows */
    new.received = 0;
    if ((err = sow_core_enter(&new, SOW_CORE_ERASE)) < 0)
        return err;
    *c = new;
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
    if (!exists(c, index))
        return -SOW_CAUSE_NO_SESSION;
    if (c->at.phase < SOW_CORE_ASK)
        return forget(c);
    c->at.flags |= SOW_FLAG_DELETED; /* the block is complete and good: go on without the session */
    return sow_core_save(c);
}

/* Erase the next page of the download area, and of slot B if it is to hold rows; or, to thaw, of the rows. */
static int erase_slice(struct sow_core *c)
{
    const struct sow_map *map = c->log.cfg->map;
    const struct sow_region *r = sow_store_rows(c);
    uint32_t page = c->log.cfg->port->page, addr = c->place[SOW_ROWS] + c->pos;
    int err;

    if (c->at.phase == SOW_CORE_ERASE) {
        addr = map->download.addr + c->pos;
        if (c->pos < map->download.size || r == &map->download)
            r = &map->download;
        else
            addr = r->addr + c->pos - map->download.size;
    }
    if (addr < r->addr + r->size) {
        c->pos += page;
        if (sow_flash_erase(c->log.cfg, addr, page) < 0)
            return sow_core_stop(c, SOW_STEP_SETUP, -SOW_CAUSE_FLASH_IO);
        return SOW_MORE;
    }
    if ((err = sow_core_enter(c, SOW_CORE_COLLECT)) < 0)
        return err;
    return sow_fec_resume(c);
}

int sow_core_fragment(struct sow_core *c, uint8_t index, uint16_t n, const uint8_t *data, uint32_t len)
{
    int err;

    if (!exists(c, index))
        return -SOW_CAUSE_NO_SESSION;
    if (c->at.phase == SOW_CORE_STOP)
        return -(int)c->at.cause;
    if (n == 0 || n > 16383 || len != c->at.session.frag_size)
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
    [SOW_CORE_NONE] = SOW_STEP_NONE,       [SOW_CORE_STOP] = SOW_STEP_NONE,
    [SOW_CORE_READY] = SOW_STEP_READY,     [SOW_CORE_INSTALL] = SOW_STEP_INSTALL,
    [SOW_CORE_ERASE] = SOW_STEP_SETUP,     [SOW_CORE_THAW] = SOW_STEP_RECEIVE,
    [SOW_CORE_COLLECT] = SOW_STEP_RECEIVE, [SOW_CORE_SOLVE] = SOW_STEP_VERIFY,
    [SOW_CORE_CHECK] = SOW_STEP_VERIFY,    [SOW_CORE_MIC] = SOW_STEP_VERIFY,
    [SOW_CORE_JUDGE] = SOW_STEP_MANIFEST,  [SOW_CORE_DIGEST] = SOW_STEP_VERIFY,
    [SOW_CORE_ASK] = SOW_STEP_PATCH,       [SOW_CORE_WRITE] = SOW_STEP_PATCH,
    [SOW_CORE_HASH] = SOW_STEP_PATCH,
};

static __attribute__((noinline)) int work_ask(struct sow_core *c)
{
    struct sow_manifest m;
    int err = sow_manifest_read(c, &m);

    if (err == SOW_OK)
        err = sow_core_progress(c, 0); /* resets while the answer is "later" are no failures */
    if (err < 0)
        return sow_core_stop(c, SOW_STEP_PATCH, err);
    err = ask(c, SOW_PHASE_PATCH, SOW_STEP_PATCH, m.new_size / 1024u + 1u);
    if (err == SOW_OK) {
        c->at.flags &= (uint8_t)~(SOW_FLAG_RUNNING | SOW_FLAG_TRIED);
        return SOW_DONE;
    }
    return c->at.phase == SOW_CORE_STOP ? err : SOW_OK; /* put off: asked again by the next call */
}

/* Before long work: count that it was started, once after each reset. */
static int start(struct sow_core *c)
{
    if ((c->at.flags & SOW_FLAG_TRIED) != 0)
        return SOW_OK;
    if (c->at.tries >= SOW_CORE_TRIES)
        return -SOW_CAUSE_NO_PROGRESS;
    c->at.flags |= SOW_FLAG_TRIED;
    c->at.tries++;
    return sow_core_save(c);
}

/* One slice of a phase from SOLVE on. Apart, or the compiler follows each result on its own. */
static __attribute__((noinline)) int slice(struct sow_core *c, uint8_t phase)
{
    switch (phase) {
    case SOW_CORE_SOLVE:
        return sow_fec_solve(c);
    case SOW_CORE_CHECK:
        return sow_fec_check(c);
    case SOW_CORE_MIC:
        return sow_mic(c);
    case SOW_CORE_JUDGE:
        return sow_judge(c);
    case SOW_CORE_ASK:
        return work_ask(c);
    case SOW_CORE_WRITE:
        return sow_write(c);
    default: /* DIGEST, HASH */
        return sow_judge_digest(c);
    }
}

int sow_core_work(struct sow_core *c)
{
    uint8_t phase = c->at.phase;
    int early = phase == SOW_CORE_COLLECT, err;

    if (phase == SOW_CORE_NONE || phase == SOW_CORE_STOP || phase >= SOW_CORE_READY)
        return SOW_OK;
    if (phase < SOW_CORE_COLLECT)
        return erase_slice(c);
    if (early) { /* judge the manifest while fragments still come in */
        if ((c->at.flags & SOW_FLAG_JUDGED) != 0 || !sow_fec_head_known(c, SOW_MANIFEST_SIZE))
            return SOW_OK;
        phase = SOW_CORE_JUDGE;
    }
    if ((err = start(c)) < 0)
        return sow_core_stop(c, step_of[phase], err);
    err = slice(c, phase);
    if (err == SOW_DONE) {
        if (early) {
            c->at.flags |= SOW_FLAG_JUDGED;
            c->at.tries = 0;
            return sow_core_save(c);
        }
        err = sow_core_enter(c, (uint8_t)(phase + 1u));
        return phase == SOW_CORE_HASH && err >= 0 ? SOW_DONE : err;
    }
    if (err >= 0 || c->at.phase == SOW_CORE_STOP)
        return err;
    if (early)
        return sow_core_stop(c, step_of[phase], err);
    /* Stop for that cause, unless the block has rotted since it was checked. */
    c->at.step = step_of[phase];
    c->at.recheck = (uint8_t)-err;
    return sow_core_enter(c, SOW_CORE_CHECK);
}

static void boot_step(const struct sow_core *c, struct sow_status *out)
{
    static const uint8_t step[] = {SOW_STEP_NONE,    SOW_STEP_INSTALL, SOW_STEP_TRIAL,
                                   SOW_STEP_RUNNING, SOW_STEP_TRIAL,   SOW_STEP_INSTALL};
    struct sow_boot_status boot;

    (void)sow_boot_read(c->log.cfg, &boot);
    out->step = step[boot.state];
    out->cause = boot.cause;
}

int sow_core_status(const struct sow_core *c, uint8_t index, struct sow_status *out)
{
    uint8_t phase = c->at.phase;

    memset(out, 0, sizeof *out);
    out->exists = (uint8_t)exists(c, index);
    out->session = c->at.session;
    out->step = phase == SOW_CORE_STOP ? c->at.step : step_of[phase];
    out->cause = c->at.cause;
    out->received = c->received;
    out->memory_error = (c->at.flags & SOW_FLAG_NO_ROWS) != 0;
    out->mic_error = c->at.cause == SOW_CAUSE_SESSION_MIC_BAD;
    if (phase == SOW_CORE_ERASE)
        out->missing = c->at.session.nb_frag;
    else if (phase == SOW_CORE_COLLECT)
        out->missing = (uint16_t)(c->count[SOW_ROWS] - c->rank);
    else if (phase != SOW_CORE_NONE && phase < SOW_CORE_ASK)
        out->missing = !out->mic_error; /* nothing says "complete" before the block is proved */
    if (phase == SOW_CORE_NONE || phase == SOW_CORE_INSTALL)
        boot_step(c, out);
    return SOW_OK;
}

/* The version of the image in slot B, when its block was judged. */
static uint32_t image_version(const struct sow_core *c)
{
    struct sow_manifest m;

    return sow_manifest_read(c, &m) == SOW_OK ? m.version : 0;
}

int sow_core_image(const struct sow_core *c, struct sow_image *out)
{
    uint8_t cause = c->at.cause;

    out->state = 0;
    out->version = 0;
    if (c->at.phase == SOW_CORE_READY || installing(c)) {
        out->state = 3;
        out->version = image_version(c);
    } else if (c->at.phase == SOW_CORE_STOP) {
        if (cause == SOW_CAUSE_CLASS_MISMATCH || cause == SOW_CAUSE_HARDWARE_MISMATCH)
            out->state = 2;
        else if (c->at.step == SOW_STEP_VERIFY || c->at.step == SOW_STEP_PATCH || cause == SOW_CAUSE_SIGNATURE_BAD ||
                 cause == SOW_CAUSE_KEY_UNKNOWN)
            out->state = 1;
    }
    return SOW_OK;
}

int sow_core_image_delete(struct sow_core *c, uint32_t version)
{
    if (c->at.phase != SOW_CORE_READY)
        return -SOW_CAUSE_NO_SESSION;
    if (image_version(c) != version)
        return -SOW_CAUSE_IMAGE_INVALID;
    return forget(c);
}

int sow_core_install(struct sow_core *c)
{
    struct sow_boot_status boot;
    uint8_t raw[SOW_MANIFEST_SIZE];
    int err;

    if (installing(c))
        return SOW_OK;
    if (c->at.phase != SOW_CORE_READY)
        return -SOW_CAUSE_NO_SESSION;
    if ((err = ask(c, SOW_PHASE_SWAP, SOW_STEP_INSTALL, c->log.cfg->map->slot_a.size / 4096u + 5u)) < 0)
        return err;
    for (uint32_t i = 0; i * c->at.session.frag_size < SOW_MANIFEST_SIZE; i++)
        if (sow_slot_xor(c, SOW_SLOT(SOW_DATA, i), 0) < 0) {
            (void)sow_fec_thaw(c);
            return -SOW_CAUSE_FLASH_DECAY;
        }
    if ((err = sow_block_read(c, 0, raw, sizeof raw)) < 0)
        return err;
    (void)sow_boot_read(c->log.cfg, &boot);
    /* First the intent, or a cut would leave an image that is installed and still waits to be. */
    c->at.requests = boot.requests;
    if ((err = sow_core_enter(c, SOW_CORE_INSTALL)) < 0 || (err = sow_boot_request(c->log.cfg, raw)) < 0) {
        (void)sow_core_enter(c, SOW_CORE_READY);
        return err;
    }
    return SOW_OK;
}

void sow_core_time(struct sow_core *c, uint32_t gps)
{
    c->gps = gps;
}
