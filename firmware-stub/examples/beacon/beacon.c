/* Example application: a thermometer on LoRaWAN that can be updated over the air.
 *
 * It prints its version, measures once a minute, reports every half hour, and leaves firmware updates to the
 * library behind the modem protocol. The same source makes 1.0.0 and 1.1.0 (APP_MINOR), and releases that fail
 * on purpose (APP_VERDICT 1: the self-test fails, 2: endless loop) for the tests of the boot stub.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

#include "beacon.h"
#include "mps2.h"
#include "sensor.h"
#include "sow_modem.h"
#include "sow_packages.h"
#include "sow_patch.h"

#ifndef APP_VERDICT
#define APP_VERDICT 0
#endif

#ifndef PATCH_KIB
#define PATCH_KIB 16u /* RAM class of the patches that it takes: 5, 8 or 16 */
#endif
#define ARENA_BYTES (sizeof(struct sow_patch) + PATCH_KIB * 1024u)
#define HEARTBEAT_SECONDS 60u
#define SAMPLE_SECONDS 60u
#define SAMPLES_PER_REPORT 30u
#define REPORT_PORT 3u

/* For a harness that cannot execute the image: what it would find if it did. */
__attribute__((section(".app_info"), used)) static const struct beacon_info info = {
    BEACON_INFO_MAGIC, 1u << 24 | (uint32_t)APP_MINOR << 16, APP_VERDICT};

static struct {
    struct sow_port port;
    struct sow_identity identity;
    struct sow_modem modem;
    struct sensor sensor;
    uint32_t random;
    uint32_t next_sample;
    uint32_t stack; /* most that was used, as last told */
} app;

/* What beacon.ld holds against the budget of the library. */
__attribute__((section(".arena"))) static uint8_t arena[ARENA_BYTES] SOW_ALIGNED;
__attribute__((section(".size_of_context"), used)) static const uint8_t context[sizeof(struct sow)];

static uint32_t random_bits(void *user)
{
    (void)user;
    app.random = app.random * 1664525u + 1013904223u;
    return app.random ^ app.random >> 15;
}

static void uart(void *user, const uint8_t *bytes, uint32_t n)
{
    (void)user;
    mps2_uart_write(bytes, n);
}

static void judge(void *user, struct sow_modem *m, uint32_t now)
{
    (void)user;
    int good = sensor_self_test(&app.sensor) == 0;
#if APP_VERDICT == 1
    good = 0; /* a release with a broken sensor driver */
#elif APP_VERDICT == 2
    sow_modem_console(m, "beacon: waiting for a sensor that never answers");
    for (;;) {
    }
#endif
    sow_modem_console(m, good ? "beacon: self-test passed" : "beacon: self-test FAILED");
    sow_self_test(&m->s, now, good ? SOW_CAUSE_OK : SOW_CAUSE_SELF_TEST_FAILED);
}

static void put_4_digits(char *at, uint32_t n)
{
    for (uint32_t i = 4u; i != 0u; n /= 10u) {
        at[--i] = (char)('0' + n % 10u);
    }
}

static void watch_stack(struct sow_modem *m)
{
    char text[] = "beacon: stack 0000 of 0000 bytes";
    uint32_t used = mps2_stack_used();
    if (used > app.stack) {
        app.stack = used;
        put_4_digits(text + 14, used);
        put_4_digits(text + 22, mps2_stack_size());
        sow_modem_console(m, text);
    }
}

static uint32_t measure(void *user, struct sow_modem *m, uint32_t now)
{
    uint8_t report[SENSOR_REPORT_MAX];
    char text[96];
    (void)user;
    watch_stack(m);
    if (app.next_sample == 0u) {
        app.next_sample = now + SAMPLE_SECONDS;
    }
    if ((int32_t)(now - app.next_sample) < 0) {
        return app.next_sample;
    }
    app.next_sample = now + SAMPLE_SECONDS;
    sensor_sample(&app.sensor);
    /* An uplink inside a receive window would cost a fragment. */
    if (app.sensor.samples % SAMPLES_PER_REPORT == 0u && sow_quiet_until(&m->s, now) == now) {
        sow_modem_uplink(m, REPORT_PORT, report, sensor_report(&app.sensor, report));
        text[sensor_text(&app.sensor, text, sizeof text - 1u)] = '\0';
        sow_modem_console(m, text);
    }
    return app.next_sample;
}

int main(void)
{
    static const struct sow_options options = {.package_version = 2, .confirm = SOW_CONFIRM_JOINED};
    static const struct sow_modem_app hooks = {.boot = judge, .poll = measure, .heartbeat = HEARTBEAT_SECONDS};
    struct sow_config config = {&app.port, &mps2_map, &app.identity};

    mps2_init();
    mps2_watchdog_kick();
    if (mps2_factory(&app.identity, &app.random) != 0) {
        mps2_reset();
    }
    mps2_port(&app.port);
    app.port.random = random_bits;
    sensor_init(&app.sensor, app.random);
    sow_modem_init(&app.modem, &config, &options, &hooks, arena, sizeof arena, uart, 0);
    for (;;) {
        mps2_watchdog_stop();
        uint8_t byte = mps2_uart_read();
        mps2_watchdog_kick();
        sow_modem_input(&app.modem, &byte, 1u);
        if (app.modem.reset_wanted != 0u) {
            mps2_reset();
        }
    }
}
