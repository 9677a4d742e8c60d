#include "fake_core.h"

#include <string.h>

#include "sow_packages.h"
#include "sow_services.h"

struct fake_core fake;

static int8_t stage[4]; /* of a complete block: slices of work done */

int sow_services_check(void) { return fake.services_result; }

int sow_core_open(struct sow_core *c, const struct sow_config *cfg, void *arena, uint32_t arena_size)
{
    (void)c, (void)cfg, (void)arena, (void)arena_size;
    return fake.open_result;
}

int sow_core_session(struct sow_core *c, const struct sow_session *s)
{
    struct sow_status *st = &fake.st[s->index];

    (void)c;
    if (!s->nb_frag || s->padding >= s->frag_size) return -SOW_CAUSE_ALGO_UNSUPPORTED;
    fake.sessions++;
    if (fake.session_result < 0) return fake.session_result;
    if (st->exists && memcmp(&st->session, s, sizeof *s) == 0) return SOW_OK;
    memset(st, 0, sizeof *st);
    stage[s->index] = 0;
    st->exists = 1;
    st->step = SOW_STEP_RECEIVE;
    st->missing = s->nb_frag;
    st->session = *s;
    return SOW_OK;
}

int sow_core_delete(struct sow_core *c, uint8_t index)
{
    (void)c;
    if (!fake.st[index].exists) return -SOW_CAUSE_NO_SESSION;
    memset(&fake.st[index], 0, sizeof fake.st[index]);
    return SOW_OK;
}

int sow_core_fragment(struct sow_core *c, uint8_t index, uint16_t n, const uint8_t *data, uint32_t len)
{
    struct sow_status *st = &fake.st[index];
    volatile uint8_t sum = 0;

    (void)c;
    for (uint32_t i = 0; i < len; i++) sum = (uint8_t)(sum + data[i]); /* reads every byte it is given */
    if (!st->exists) return -SOW_CAUSE_NO_SESSION;
    if (len != st->session.frag_size) return -SOW_CAUSE_FLASH_IO;
    fake.fragments++;
    fake.last_n = n;
    st->received++;
    if (st->missing) st->missing--;
    return st->missing ? SOW_MORE : SOW_DONE;
}

int sow_core_work(struct sow_core *c)
{
    (void)c;
    fake.works++;
    for (int i = 0; i < 4; i++) {
        struct sow_status *st = &fake.st[i];

        if (!st->exists || stage[i] > 2) continue;
        if (st->missing && !(fake.stop_cause && fake.stop_at_once)) continue;
        if (fake.stop_cause) {
            st->cause = fake.stop_cause;
            st->mic_error = fake.stop_cause == SOW_CAUSE_SESSION_MIC_BAD;
            st->detail = 0x0102;
            return -fake.stop_cause;
        }
        st->cause = SOW_CAUSE_OK;
        st->step = (uint8_t)(SOW_STEP_VERIFY + stage[i]++);
        if (st->step < SOW_STEP_READY) return SOW_MORE;
        fake.image.state = 3;
        fake.image.version = fake.next_version;
        return SOW_DONE;
    }
    return SOW_OK;
}

int sow_core_status(const struct sow_core *c, uint8_t index, struct sow_status *out)
{
    static const uint8_t step[] = {SOW_STEP_NONE,    SOW_STEP_INSTALL, SOW_STEP_TRIAL,
                                   SOW_STEP_RUNNING, SOW_STEP_TRIAL,   SOW_STEP_INSTALL};

    (void)c;
    *out = fake.st[index];
    if (!out->exists) {
        out->step = step[fake.boot.state];
        out->cause = fake.boot.cause;
    }
    return SOW_OK;
}

int sow_core_image(const struct sow_core *c, struct sow_image *out)
{
    (void)c;
    *out = fake.image;
    return SOW_OK;
}

int sow_core_image_delete(struct sow_core *c, uint32_t version)
{
    (void)c;
    if (fake.image.state != 3) return -SOW_CAUSE_NO_SESSION;
    if (fake.image.version != version) return -SOW_CAUSE_IMAGE_INVALID;
    memset(&fake.image, 0, sizeof fake.image);
    return SOW_OK;
}

int sow_core_install(struct sow_core *c)
{
    (void)c;
    fake.installs++;
    return fake.install_result;
}

void sow_core_time(struct sow_core *c, uint32_t gps)
{
    (void)c;
    fake.gps = gps;
}

int sow_core_kv_get(struct sow_core *c, uint8_t key, uint32_t *value)
{
    (void)c;
    if (!fake.kv_set[key & 15]) return -SOW_CAUSE_NO_SESSION;
    *value = fake.kv[key & 15];
    return SOW_OK;
}

int sow_core_kv_put(struct sow_core *c, uint8_t key, uint32_t value)
{
    (void)c;
    fake.kv_set[key & 15] = 1;
    fake.kv[key & 15] = value;
    return SOW_OK;
}

int sow_boot_read(const struct sow_config *cfg, struct sow_boot_status *out)
{
    (void)cfg;
    fake.asked++;
    *out = fake.boot;
    return SOW_OK;
}

int sow_boot_confirm(const struct sow_config *cfg)
{
    (void)cfg;
    fake.confirms++;
    fake.boot.state = SOW_BOOT_CONFIRMED;
    return SOW_OK;
}

int sow_boot_reject(const struct sow_config *cfg, uint8_t cause)
{
    (void)cfg;
    fake.rejects++;
    fake.reject_cause = cause;
    return SOW_OK;
}

int sow_image_header(const struct sow_config *cfg, const struct sow_region *slot, uint32_t *version, uint32_t *size,
                     uint32_t *entry)
{
    (void)cfg, (void)slot, (void)size, (void)entry;
    fake.asked++;
    *version = fake.version;
    return SOW_OK;
}
