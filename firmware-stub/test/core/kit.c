#include "kit.h"

#include "sow_aes.h"
#include "sow_parity.h"
#include "sow_sha256.h"

unsigned long checks;
char context[200] = "";

uint32_t rnd(uint32_t *state)
{
    uint32_t x = *state;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

void put(uint8_t *p, uint32_t v, unsigned n)
{
    while (n-- != 0) {
        *p++ = (uint8_t)v;
        v >>= 8;
    }
}

static void sha256(const void *data, uint32_t n, uint8_t digest[32])
{
    struct sow_sha256 s;

    sow_sha256_init(&s);
    sow_sha256_update(&s, data, n);
    sow_sha256_final(&s, digest);
}

/* Accepts key 1 and the "signature" that sign() makes: fast enough for a hundred thousand boots. */
static int verify(void *user, uint8_t key_id, const uint8_t hash[32], const uint8_t sig[64])
{
    (void)user;
    for (unsigned i = 0; i < 32; i++)
        if (sig[i] != hash[i] || (sig[32 + i] ^ hash[i]) != 0xff)
            return -1;
    return key_id == 1 ? 0 : -1;
}

static struct kit *asked; /* the emulator owns port.user */

static int consent(void *user, uint8_t phase, uint32_t seconds, uint8_t *cause)
{
    (void)user;
    CHECK(seconds > 0);
    asked->consents[phase]++;
    if (asked->consent != SOW_CONSENT_YES)
        *cause = asked->consent_cause;
    return asked->consent;
}

static void place(struct sow_region *r, uint32_t *at, uint32_t size)
{
    r->addr = *at;
    r->size = size;
    *at += size;
}

void kit_open(struct kit *k, const struct layout *l, uint32_t old_size, uint32_t seed)
{
    struct sow_flash_emu_geometry g = {0x08000000u, 0, l->page, l->granule, l->erase_value};
    uint32_t at = g.base;

    memset(k, 0, sizeof *k);
    place(&k->map.slot_a, &at, l->slot);
    place(&k->map.slot_b, &at, l->slot);
    place(&k->map.download, &at, l->download);
    place(&k->map.journal, &at, l->journal);
    place(&k->map.boot, &at, l->boot);
    place(&k->map.scratch, &at, l->scratch);
    g.size = at - g.base;
    k->memory = malloc(sow_flash_emu_size(&g));
    CHECK(sow_flash_emu_init(&k->flash, &g, k->memory) == 0);
    k->port.user = &k->flash;
    k->port.read = sow_flash_emu_read;
    k->port.prog = sow_flash_emu_prog;
    k->port.erase = sow_flash_emu_erase;
    k->port.verify = verify;
    k->port.consent = consent;
    k->port.granule = l->granule;
    k->port.page = l->page;
    k->port.erase_value = l->erase_value;
    k->identity.class_id = 0x0badcafe;
    k->identity.hardware_id = 0x1234;
    memset(k->identity.root_key, 0x42, 16);
    k->config.port = &k->port;
    k->config.map = &k->map;
    k->config.identity = &k->identity;
    k->arena_size = 4096;
    k->arena = aligned_alloc(16, 8192);
    k->old_size = old_size;
    make_image(k->old, old_size, 0x01000000, seed);
    CHECK(sow_flash_emu_load(&k->flash, k->map.slot_a.addr, k->old, old_size) == 0);
    asked = k;
}

void kit_close(struct kit *k)
{
    CHECK(k->flash.violations == 0);
    free(k->memory);
    free(k->arena);
}

int kit_start(struct kit *k)
{
    uint32_t entry;
    int err;

    k->resets++;
    memset(&k->core, 0xa5, sizeof k->core);
    memset(k->arena, 0xa5, k->arena_size);
    if ((err = sow_boot(&k->config, &entry)) < 0)
        return err;
    return sow_core_open(&k->core, &k->config, k->arena, k->arena_size);
}

int kit_work(struct kit *k)
{
    int err;

    while ((err = sow_core_work(&k->core)) == SOW_MORE)
        ;
    return err;
}

void make_image(uint8_t *image, uint32_t size, uint32_t version, uint32_t seed)
{
    uint32_t body = size - 32 - 40;

    CHECK(size <= IMAGE_MAX && size > 72);
    memset(image, 0, 32);
    put(image, 0x96f3b83d, 4);
    put(image + 8, 32, 2);
    put(image + 12, body, 4);
    image[20] = (uint8_t)(version >> 24);
    image[21] = (uint8_t)(version >> 16);
    put(image + 22, version, 2);
    for (uint32_t i = 0; i < body; i++)
        image[32 + i] = (uint8_t)(i % 16 < 4 ? 0xff : rnd(&seed)); /* runs that look erased, too */
    put(image + 32 + body, 0x6907, 2);
    put(image + 32 + body + 2, 40, 2);
    put(image + 32 + body + 4, 0x10, 2);
    put(image + 32 + body + 6, 32, 2);
    sha256(image, 32 + body, image + 32 + body + 8);
}

void sign(struct bundle *b)
{
    uint8_t *sig = b->block + SOW_MANIFEST_SIGNED;

    sha256(b->block, SOW_MANIFEST_SIGNED, sig);
    for (unsigned i = 0; i < 32; i++)
        sig[32 + i] = (uint8_t)~sig[i];
}

void set_mic(struct bundle *b, const struct kit *k)
{
    uint8_t label[16] = {0x30}, key[16], b0[16] = {0x49}, mac[16];
    struct sow_session *s = &b->session;
    struct sow_cmac c;

    sow_aes128_encrypt(k->identity.root_key, label, key);
    put(b0 + 1, s->session_cnt, 2);
    b0[3] = s->index;
    memcpy(b0 + 4, s->descriptor, 4);
    put(b0 + 12, b->block_size, 4);
    sow_cmac_init(&c, key);
    sow_cmac_update(&c, b0, 16);
    sow_cmac_update(&c, b->block, b->block_size);
    sow_cmac_final(&c, mac);
    memcpy(s->mic, mac, 4);
}

void refit(struct bundle *b, uint8_t frag_size, uint8_t matrix)
{
    struct sow_session *s = &b->session;

    s->frag_size = frag_size;
    s->matrix = matrix;
    s->nb_frag = (uint16_t)((b->block_size + frag_size - 1) / frag_size);
    s->padding = (uint8_t)(s->nb_frag * frag_size - b->block_size);
    memset(b->block + b->block_size, 0x5c, s->padding); /* any filler is legal */
}

void begin_bundle(struct bundle *b, const struct kit *k, uint8_t codec, uint32_t version, uint32_t sequence,
                  const uint8_t *payload, uint32_t size)
{
    uint8_t *m = b->block, digest[32];

    memcpy(m + SOW_MANIFEST_SIZE, payload, size);
    CHECK(SOW_MANIFEST_SIZE + size + 255 <= BLOCK_MAX);
    b->block_size = SOW_MANIFEST_SIZE + size;
    m[0] = 0x53;
    m[1] = 1;
    m[2] = codec;
    put(m + 4, k->identity.class_id, 4);
    put(m + 8, k->identity.hardware_id, 2);
    m[10] = 1;
    put(m + 12, version, 4);
    put(m + 16, sequence, 4);
    put(m + 24, b->image_size, 3);
    if (codec == SOW_CODEC_PATCH) {
        put(m + 27, k->old_size, 3);
        put(m + 33, 0x08000000u >> 8, 3);
        sha256(k->old, k->old_size, digest);
        memcpy(m + 40, digest, 8);
    }
    put(m + 30, size, 3);
    sha256(m + SOW_MANIFEST_SIZE, size, digest);
    memcpy(m + 48, digest, 16);
    sha256(b->image, b->image_size, m + 64);
    memcpy(b->session.descriptor, "\1\2\3\4", 4);
    b->session.mc_mask = 1;
}

void end_bundle(struct bundle *b, const struct kit *k, uint32_t sequence, uint8_t frag_size, uint8_t matrix)
{
    sign(b);
    refit(b, frag_size, matrix);
    if (matrix != SOW_MATRIX_V1) {
        b->session.has_mic = 1;
        b->session.session_cnt = (uint16_t)sequence;
        set_mic(b, k);
    }
}

void make_bundle(struct bundle *b, const struct kit *k, uint8_t codec, uint32_t size, uint32_t sequence,
                 uint8_t frag_size, uint8_t matrix)
{
    uint32_t seed = sequence * 7919 + 1;

    memset(b, 0, sizeof *b);
    b->image_size = size;
    make_image(b->image, size, 0x02000000 + sequence, seed);
    if (codec == SOW_CODEC_PATCH) {
        uint32_t common = size < k->old_size ? size : k->old_size;

        memcpy(b->image + 32, k->old + 32, common - 72);
        for (uint32_t i = 0; i < size / 20; i++)
            b->image[32 + rnd(&seed) % (size - 72)] = (uint8_t)rnd(&seed);
        sha256(b->image, size - 40, b->image + size - 32);
    }
    /* A patch of profile 0 is the image, too. */
    begin_bundle(b, k, codec, 0x02000000 + sequence, sequence, b->image, size);
    b->block[11] = codec == SOW_CODEC_PATCH ? 1 : 0;
    end_bundle(b, k, sequence, frag_size, matrix);
}

void make_fragment(const struct bundle *b, uint16_t n, uint8_t *out)
{
    uint8_t row[2048];
    uint32_t s = b->session.frag_size, m = b->session.nb_frag;

    if (n <= m) {
        memcpy(out, b->block + (n - 1u) * s, s);
        return;
    }
    memset(out, 0, s);
    memset(row, 0, (m + 7) / 8);
    sow_parity_row(row, b->session.matrix, (uint16_t)m, n);
    for (uint32_t i = 0; i < m; i++)
        if (sow_bit(row, i))
            for (uint32_t j = 0; j < s; j++)
                out[j] ^= b->block[i * s + j];
}
