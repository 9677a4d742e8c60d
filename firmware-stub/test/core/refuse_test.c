/* What must not be installed is refused, with the cause the server reads. */
#include "kit.h"
#include "sow_core_private.h"
#include "tests.h"

static struct kit k;
static struct bundle b;
static unsigned cases;

static const struct layout layout = {256, 8, 4096, 8192, 2048, 1024, 512, 0xff};

static void begin(const char *what)
{
    snprintf(context, sizeof context, "refusal: %s", what);
    kit_open(&k, &layout, 3000, 7);
    make_bundle(&b, &k, SOW_CODEC_PATCH, 3100, 5, 40, SOW_MATRIX_V1);
    CHECK(kit_start(&k) == SOW_OK);
    cases++;
}

static int give(uint16_t n)
{
    uint8_t f[255];

    make_fragment(&b, n, f);
    return sow_core_fragment(&k.core, 0, n, f, b.session.frag_size);
}

static void expect_stop(uint8_t step, uint8_t cause)
{
    struct sow_status st;
    struct sow_image image;

    for (int pass = 0; pass < 2; pass++) {
        sow_core_status(&k.core, 0, &st);
        CHECK(st.exists && st.step == step && st.cause == cause);
        CHECK(st.missing > 0 || st.mic_error);
        CHECK(give(1) == -(int)cause);
        CHECK(sow_core_work(&k.core) == SOW_OK);
        sow_core_image(&k.core, &image);
        CHECK(image.state != 3);
        CHECK(sow_core_install(&k.core) < 0);
        CHECK(kit_start(&k) == SOW_OK); /* the cause outlives a reset */
    }
    kit_close(&k);
}

/* The manifest is judged from its first fragments, and reception ends there. */
static void early(uint8_t cause)
{
    int r = SOW_OK;

    sign(&b);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    for (uint16_t n = 1; n <= 4; n++) {
        CHECK(r == SOW_OK);
        CHECK(give(n) == SOW_MORE);
        r = kit_work(&k);
    }
    CHECK(r == -(int)cause);
    expect_stop(SOW_STEP_MANIFEST, cause);
}

/* The manifest is known only after solving: fragment 2 was lost. */
static void late(uint8_t step, uint8_t cause)
{
    int r = SOW_MORE;
    uint16_t n = 1;

    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    for (; r == SOW_MORE; n++)
        if (n != 2) {
            r = give(n);
            if (r == SOW_MORE)
                CHECK(kit_work(&k) == SOW_OK);
        }
    CHECK(r == SOW_DONE);
    CHECK(kit_work(&k) == -(int)cause);
    expect_stop(step, cause);
}

#define EDIT(name, edit, cause)                                                                    \
    do {                                                                                           \
        begin(name);                                                                               \
        edit;                                                                                      \
        early(cause);                                                                              \
        begin(name ", solved");                                                                    \
        edit;                                                                                      \
        sign(&b);                                                                                  \
        late(SOW_STEP_MANIFEST, cause);                                                            \
    } while (0)

static void manifests(void)
{
    EDIT("magic", b.block[0] = 0x54, SOW_CAUSE_MANIFEST_FORMAT);
    EDIT("format", b.block[1] = 2, SOW_CAUSE_MANIFEST_FORMAT);
    EDIT("flags", b.block[3] = 1, SOW_CAUSE_MANIFEST_FORMAT);
    EDIT("payload longer than the block", b.block[31]++, SOW_CAUSE_MANIFEST_FORMAT);
    EDIT("class", b.block[4]++, SOW_CAUSE_CLASS_MISMATCH);
    EDIT("hardware", b.block[8]++, SOW_CAUSE_HARDWARE_MISMATCH);
    EDIT("key", b.block[10] = 9; k.port.verify = 0; k.identity.keys[0].id = 1, SOW_CAUSE_KEY_UNKNOWN);
    EDIT("sequence", memset(b.block + 16, 0, 4), SOW_CAUSE_ROLLBACK_BLOCKED);
    EDIT("expiry", (b.block[20] = 200, sow_core_time(&k.core, 201)), SOW_CAUSE_EXPIRED);
    EDIT("slot", b.block[25] = 0x11, SOW_CAUSE_IMAGE_TOO_LARGE);
    EDIT("codec", b.block[2] = SOW_CODEC_ZSTD, SOW_CAUSE_CODEC_UNSUPPORTED);
    EDIT("profile", b.block[38] = 77, SOW_CAUSE_CODEC_UNSUPPORTED);
    EDIT("base digest", b.block[40]++, SOW_CAUSE_BASE_MISMATCH);
    EDIT("base size", b.block[27]++, SOW_CAUSE_BASE_MISMATCH);
    EDIT("scratch", b.block[36] = 9, SOW_CAUSE_NO_SCRATCH);
    EDIT("full image of another size", (b.block[2] = SOW_CODEC_FULL, b.block[24]--), SOW_CAUSE_MANIFEST_FORMAT);

    begin("signature");
    b.block[100]++;
    late(SOW_STEP_MANIFEST, SOW_CAUSE_SIGNATURE_BAD);
    begin("expiry, time unknown");
    b.block[20] = 200;
    sign(&b);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    for (uint16_t n = 1; n <= b.session.nb_frag; n++)
        CHECK(give(n) >= 0);
    CHECK(kit_work(&k) == SOW_DONE);
    kit_close(&k);
}

static void blocks(void)
{
    begin("payload digest");
    b.block[b.block_size - 1]++;
    late(SOW_STEP_VERIFY, SOW_CAUSE_DIGEST_BAD);

    begin("session MIC");
    refit(&b, 40, SOW_MATRIX_V2);
    b.session.has_mic = 1;
    b.session.session_cnt = 9;
    late(SOW_STEP_VERIFY, SOW_CAUSE_SESSION_MIC_BAD);

    /* v2 rows read as v1: every check but the digest would pass. */
    begin("other dialect");
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    b.session.matrix = SOW_MATRIX_V2;
    for (uint16_t n = 6, r = 0; r != SOW_DONE; n++)
        if (n != 20) {
            r = (uint16_t)give(n <= b.session.nb_frag + 60u ? n : (uint16_t)(n - b.session.nb_frag - 60));
            CHECK(n < 1000);
        }
    CHECK(kit_work(&k) < 0);
    sow_core_delete(&k.core, 0);
    kit_close(&k);

    begin("patch");
    b.block[24]--; /* the stream is longer than the image that it is to make */
    sign(&b);
    late(SOW_STEP_PATCH, SOW_CAUSE_PATCH_CORRUPT);

    begin("new image digest");
    b.block[64]++;
    sign(&b);
    late(SOW_STEP_PATCH, SOW_CAUSE_IMAGE_DIGEST_BAD);

    begin("image version");
    b.block[12]++;
    sign(&b);
    late(SOW_STEP_PATCH, SOW_CAUSE_IMAGE_INVALID);

    begin("arena for the decoder");
    k.arena_size = sow_core_arena_size(b.session.nb_frag, b.session.frag_size, 0);
    CHECK(kit_start(&k) == SOW_OK);
    CHECK(k.arena_size < 256);
    b.block[38] = 1;
    sign(&b);
    late(SOW_STEP_MANIFEST, SOW_CAUSE_NO_RAM);
}

/* With room for rows in the download area nothing touches slot B before the manifest and the block are proved,
 * whatever arrives and however it was lost. */
static void slot_b_waits(void)
{
    static const struct layout roomy = {256, 8, 4096, 16384, 2048, 1024, 512, 0xff};
    static uint8_t kept[4096];
    uint32_t seed = 5;

    for (unsigned trial = 0; trial < 60; trial++) {
        int good = trial % 3 == 0, r = SOW_MORE;
        uint8_t f[255];

        snprintf(context, sizeof context, "slot B, trial %u", trial);
        kit_open(&k, &roomy, 1000, 2);
        make_image(kept, sizeof kept, 7, 7);
        CHECK(sow_flash_emu_load(&k.flash, k.map.slot_b.addr, kept, sizeof kept) == 0);
        make_bundle(&b, &k, SOW_CODEC_FULL, 1000, 5, 40, SOW_MATRIX_V1);
        if (trial % 3 == 1)
            b.block[100]++; /* signature */
        if (trial % 3 == 2)
            b.block[b.block_size - 1]++; /* payload digest */
        CHECK(kit_start(&k) == SOW_OK);
        CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
        CHECK(k.core.place[SOW_ROWS] > k.map.download.addr && k.core.place[SOW_ROWS] < k.map.journal.addr);
        for (uint16_t n = (uint16_t)(1 + trial % 40); r == SOW_MORE; n++) {
            if (rnd(&seed) % 100 < trial)
                continue;
            make_fragment(&b, n, f);
            r = sow_core_fragment(&k.core, 0, n, f, 40);
            if (rnd(&seed) % 8 == 0)
                CHECK(kit_start(&k) >= 0);
            if (r == SOW_MORE && sow_core_work(&k.core) < 0)
                break;
        }
        while (k.core.at.phase != SOW_CORE_ASK && (r = sow_core_work(&k.core)) == SOW_MORE)
            ;
        CHECK(good ? k.core.at.phase == SOW_CORE_ASK : r < 0);
        CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_b.addr), kept, sizeof kept) == 0);
        for (uint32_t at = 0; at < k.map.slot_b.size; at += roomy.page)
            CHECK(sow_flash_emu_wear(&k.flash, k.map.slot_b.addr + at) == 0);
        CHECK(kit_work(&k) == (good ? SOW_DONE : SOW_OK));
        kit_close(&k);
    }
}

/* Devices of another class hear the session: how many stop before its end, and what that spares them. A device of
 * the right class, with the same losses, says how long the session is. */
static void other_class(unsigned loss)
{
    unsigned early = 0, devices = 300;
    unsigned long heard[2] = {0, 0};

    for (unsigned d = 0; d < devices; d++) {
        unsigned count[2] = {0, 0};

        for (unsigned other = 0; other < 2; other++) {
            uint32_t seed = 1000 * loss + d + 1;
            int r = SOW_MORE;
            uint8_t f[255];

            snprintf(context, sizeof context, "other class, loss %u, device %u", loss, d);
            kit_open(&k, &layout, 1000, 2);
            make_bundle(&b, &k, SOW_CODEC_FULL, 2000, 5, 48, SOW_MATRIX_V1);
            k.identity.class_id += other;
            CHECK(kit_start(&k) == SOW_OK && sow_core_session(&k.core, &b.session) == SOW_OK);
            for (uint16_t n = 1; r == SOW_MORE; n++) {
                if (rnd(&seed) % 100 < loss)
                    continue;
                make_fragment(&b, n, f);
                r = sow_core_fragment(&k.core, 0, n, f, 48);
                count[other]++;
                if (r == SOW_MORE && kit_work(&k) < 0)
                    break;
            }
            if (other && r == SOW_DONE)
                CHECK(kit_work(&k) == -SOW_CAUSE_CLASS_MISMATCH);
            heard[other] += count[other];
            kit_close(&k);
        }
        early += count[1] < count[0];
    }
    printf("other class        %2u %% loss: %u %% of the devices stop early, %lu %% of the fragments are not received\n", loss,
           100 * early / devices, 100 - 100 * heard[1] / heard[0]);
    CHECK(early * 100 > devices * (loss == 10 ? 60 : 20));
}

static void sessions(void)
{
    struct sow_session s;
    struct sow_status st;

    begin("sessions");
    s = b.session;
    CHECK(sow_core_fragment(&k.core, 0, 1, b.block, 40) == -SOW_CAUSE_NO_SESSION);
    CHECK(sow_core_delete(&k.core, 0) == -SOW_CAUSE_NO_SESSION);
    s.index = 4;
    CHECK(sow_core_session(&k.core, &s) == -SOW_CAUSE_INDEX_UNSUPPORTED);
    s = b.session;
    s.matrix = 0;
    CHECK(sow_core_session(&k.core, &s) == -SOW_CAUSE_ALGO_UNSUPPORTED);
    s = b.session;
    s.nb_frag = 0;
    CHECK(sow_core_session(&k.core, &s) == -SOW_CAUSE_ALGO_UNSUPPORTED);
    s.nb_frag = 8000;
    s.frag_size = 200;
    CHECK(sow_core_session(&k.core, &s) == -SOW_CAUSE_NO_FLASH);
    s.nb_frag = 16383;
    CHECK(sow_core_session(&k.core, &s) == -SOW_CAUSE_NO_RAM);
    sow_core_status(&k.core, 0, &st);
    CHECK(!st.exists && st.step == SOW_STEP_NONE);

    k.consent = SOW_CONSENT_NO;
    CHECK(sow_core_session(&k.core, &b.session) == -SOW_CAUSE_REFUSED);
    k.consent = SOW_CONSENT_LATER;
    k.consent_cause = SOW_CAUSE_DEFERRED_BATTERY;
    CHECK(sow_core_session(&k.core, &b.session) == -SOW_CAUSE_DEFERRED_BATTERY);
    k.consent = SOW_CONSENT_YES;

    /* A malformed fragment changes nothing; another index is another session. */
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    CHECK(sow_core_fragment(&k.core, 0, 0, b.block, 40) == SOW_MORE);
    CHECK(sow_core_fragment(&k.core, 0, 1, b.block, 39) == SOW_MORE);
    CHECK(sow_core_fragment(&k.core, 0, 16384, b.block, 40) == SOW_MORE);
    CHECK(sow_core_fragment(&k.core, 1, 1, b.block, 40) == -SOW_CAUSE_NO_SESSION);
    sow_core_status(&k.core, 0, &st);
    CHECK(st.exists && st.received == 0 && st.missing == b.session.nb_frag);
    CHECK(give(1) == SOW_MORE && give(1) == SOW_MORE);
    sow_core_status(&k.core, 0, &st);
    CHECK(st.received == 2 && st.missing == b.session.nb_frag - 1 && st.step == SOW_STEP_RECEIVE);
    sow_core_status(&k.core, 2, &st);
    CHECK(!st.exists);
    CHECK(sow_core_delete(&k.core, 1) == -SOW_CAUSE_NO_SESSION);
    CHECK(sow_core_delete(&k.core, 0) == SOW_OK);
    CHECK(give(1) == -SOW_CAUSE_NO_SESSION);

    /* SessionCnt counts once a fragment has arrived, and then for good. */
    refit(&b, 40, SOW_MATRIX_V2);
    b.session.has_mic = 1;
    b.session.session_cnt = 0;
    set_mic(&b, &k);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    CHECK(sow_core_delete(&k.core, 0) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    CHECK(give(3) == SOW_MORE);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK); /* repeated request: nothing lost */
    sow_core_status(&k.core, 0, &st);
    CHECK(st.missing == b.session.nb_frag - 1);
    CHECK(sow_core_delete(&k.core, 0) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == -SOW_CAUSE_SESSION_REPLAY);
    b.session.index = 2;
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    CHECK(sow_core_delete(&k.core, 2) == SOW_OK);
    b.session.index = 0;
    b.session.session_cnt = 1;
    set_mic(&b, &k);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);

    /* Consent to the patch: put off, over a reset, then given; the session may be deleted meanwhile. */
    for (uint16_t n = b.session.nb_frag; n > 0; n--)
        CHECK(give(n) == (n == 1 ? SOW_DONE : SOW_MORE));
    k.consent = SOW_CONSENT_LATER;
    k.consent_cause = 0;
    CHECK(kit_work(&k) == SOW_OK);
    sow_core_status(&k.core, 0, &st);
    CHECK(st.step == SOW_STEP_PATCH && st.cause == SOW_CAUSE_DEFERRED_USER && st.missing == 0);
    CHECK(kit_start(&k) >= 0);
    CHECK(kit_work(&k) == SOW_OK);
    CHECK(sow_core_delete(&k.core, 0) == SOW_OK);
    k.consent = SOW_CONSENT_YES;
    CHECK(kit_start(&k) >= 0);
    CHECK(kit_work(&k) == SOW_DONE);
    sow_core_status(&k.core, 0, &st);
    CHECK(!st.exists && st.step == SOW_STEP_READY && st.cause == 0);

    /* Images: by version; an install put off stays ready. */
    CHECK(sow_core_image_delete(&k.core, 1) == -SOW_CAUSE_IMAGE_INVALID);
    k.consent = SOW_CONSENT_LATER;
    CHECK(sow_core_install(&k.core) == -SOW_CAUSE_DEFERRED_USER);
    k.consent = SOW_CONSENT_YES;
    CHECK(sow_core_install(&k.core) == SOW_OK && sow_core_install(&k.core) == SOW_OK);
    b.session.session_cnt = 2;
    CHECK(sow_core_session(&k.core, &b.session) == -SOW_CAUSE_NO_FLASH); /* slot B is taken */
    CHECK(kit_start(&k) == SOW_OK);
    CHECK(sow_core_session(&k.core, &b.session) == -SOW_CAUSE_NO_FLASH);
    CHECK(sow_boot_reject(&k.config, SOW_CAUSE_SELF_TEST_FAILED) == SOW_OK);
    CHECK(kit_start(&k) == SOW_OK);
    sow_core_status(&k.core, 0, &st);
    CHECK(st.step == SOW_STEP_TRIAL && st.cause == SOW_CAUSE_SELF_TEST_FAILED);
    CHECK(sow_core_session(&k.core, &b.session) == SOW_OK);
    kit_close(&k);
}

static void key_values(void)
{
    uint32_t v = 77;

    begin("key/value");
    CHECK(sow_core_kv_get(&k.core, 1, &v) < 0 && v == 77);
    CHECK(sow_core_kv_put(&k.core, SOW_CORE_VALUES, 1) < 0);
    for (uint32_t i = 0; i < 2000; i++) {
        CHECK(sow_core_kv_put(&k.core, (uint8_t)(i % SOW_CORE_VALUES), i * i) == SOW_OK);
        if (i % 97 == 0)
            CHECK(kit_start(&k) == SOW_OK);
    }
    for (uint32_t i = 2000 - SOW_CORE_VALUES; i < 2000; i++)
        CHECK(sow_core_kv_get(&k.core, (uint8_t)(i % SOW_CORE_VALUES), &v) == SOW_OK && v == i * i);
    kit_close(&k);
}

/* The stub trusts nobody: what the application requests is verified again. */
static void boots(void)
{
    struct sow_boot_status boot;
    uint32_t entry;

    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t cause[] = {SOW_CAUSE_IMAGE_DIGEST_BAD, SOW_CAUSE_SIGNATURE_BAD, SOW_CAUSE_CLASS_MISMATCH,
                                        SOW_CAUSE_ROLLBACK_BLOCKED};

        begin("boot");
        CHECK(sow_boot_request(&k.config, b.block) == SOW_OK);
        CHECK(sow_flash_emu_load(&k.flash, k.map.slot_b.addr, b.image, b.image_size) == 0);
        if (i == 0)
            sow_flash_emu_flip(&k.flash, k.map.slot_b.addr + 1234, 3);
        if (i == 1)
            b.block[90]++;
        if (i == 2)
            k.identity.class_id++;
        if (i == 3) {
            memset(b.block + 16, 0, 4);
            sign(&b);
        }
        CHECK(sow_boot_request(&k.config, b.block) == SOW_OK);
        CHECK(sow_boot(&k.config, &entry) == SOW_OK && entry == k.map.slot_a.addr + 32);
        sow_boot_read(&k.config, &boot);
        CHECK(boot.state == SOW_BOOT_REFUSED && boot.cause == cause[i]);
        CHECK(memcmp(sow_flash_emu_peek(&k.flash, k.map.slot_a.addr), k.old, k.old_size) == 0);
        kit_close(&k);
    }
}

void refuse_tests(void)
{
    manifests();
    blocks();
    slot_b_waits();
    other_class(10);
    other_class(30);
    sessions();
    key_values();
    boots();
    printf("refusals           %6u cases\n", cases);
}
