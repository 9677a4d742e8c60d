/* SPDX-License-Identifier: Apache-2.0 */
#include "sensor.h"

/* Steps of the measurement stay functions of their own, so that a debugger can stop in each. */
#define STEP static __attribute__((noinline))

STEP uint32_t next_noise(struct sensor *s)
{
    s->noise ^= s->noise << 13;
    s->noise ^= s->noise >> 17;
    s->noise ^= s->noise << 5;
    return s->noise;
}

/* What the converter would return: 12 bits around the middle of the range. */
STEP int32_t read_converter(struct sensor *s)
{
    uint32_t noise = next_noise(s);
#if APP_MINOR >= 1
    /* Four readings are averaged: half the noise for four times the energy. */
    noise = (noise + next_noise(s) + next_noise(s) + next_noise(s)) >> 2;
#endif
    s->season += (s->samples & 512u) != 0u ? -1 : 1;
    return 2048 + (s->season >> 4) + (int32_t)(noise & 63u) - 32;
}

/* Converter counts to 1/100 degree; the sensor is linear in 1.0.0 and corrected at its ends in 1.1.0. */
STEP int32_t to_centidegrees(int32_t counts)
{
    int32_t value = (counts - 1600) * 5;
#if APP_MINOR >= 1
    if (value < 0) {
        value -= (value * value) / 40000;
    } else if (value > 4000) {
        value += ((value - 4000) * 3) / 200;
    }
#endif
    return value;
}

STEP int32_t smooth(int32_t average, int32_t reading)
{
#if APP_MINOR >= 1
    int32_t step = reading * 256 - average;
    if (step > 256 * 300 || step < -256 * 300) {
        return average + step / 2; /* a jump is followed at once */
    }
    return average + step / 16;
#else
    return average + (reading * 256 - average) / 8;
#endif
}

#if APP_MINOR >= 1
STEP void watch_extremes(struct sensor *s, int32_t value)
{
    if (s->samples == 0u || value < s->lowest) {
        s->lowest = value;
    }
    if (s->samples == 0u || value > s->highest) {
        s->highest = value;
    }
}

STEP uint8_t judge(int32_t value)
{
    if (value < 500) {
        return 1u;
    }
    return value > 3000 ? 2u : 0u;
}
#endif

void sensor_init(struct sensor *s, uint32_t seed)
{
    s->noise = seed | 1u;
    s->samples = 0u;
    s->smooth = 0;
    s->season = 0;
#if APP_MINOR >= 1
    s->lowest = 0;
    s->highest = 0;
    s->alarm = 0u;
    s->alarms = 0u;
#endif
}

void sensor_sample(struct sensor *s)
{
    int32_t value = to_centidegrees(read_converter(s));
    s->smooth = s->samples == 0u ? value * 256 : smooth(s->smooth, value);
#if APP_MINOR >= 1
    watch_extremes(s, value);
    uint8_t alarm = judge(sensor_value(s));
    if (alarm != 0u && s->alarm == 0u && s->alarms < 255u) {
        s->alarms++;
    }
    s->alarm = alarm;
#endif
    s->samples++;
}

int32_t sensor_value(const struct sensor *s)
{
#if APP_MINOR >= 1
    return (s->smooth + (s->smooth < 0 ? -128 : 128)) / 256; /* rounded, no longer cut off */
#else
    return s->smooth / 256;
#endif
}

STEP uint32_t put16(uint8_t *out, uint32_t at, int32_t value)
{
    out[at] = (uint8_t)value;
    out[at + 1u] = (uint8_t)(value >> 8);
    return at + 2u;
}

uint32_t sensor_report(const struct sensor *s, uint8_t *out)
{
    uint32_t n = put16(out, 0u, sensor_value(s));
#if APP_MINOR >= 1
    n = put16(out, n, s->lowest);
    n = put16(out, n, s->highest);
    out[n++] = s->alarm;
    out[n++] = s->alarms;
#endif
    return n;
}

static uint32_t put_char(char *out, uint32_t at, uint32_t cap, char c)
{
    if (at < cap) {
        out[at++] = c;
    }
    return at;
}

STEP uint32_t put_centi(char *out, uint32_t at, uint32_t cap, int32_t value)
{
    uint32_t v = value < 0 ? (uint32_t)-value : (uint32_t)value, unit = 1000000u;
    if (value < 0) {
        at = put_char(out, at, cap, '-');
    }
    while (unit > 100u && v < unit) {
        unit /= 10u;
    }
    for (; unit != 0u; unit /= 10u) {
        if (unit == 10u) {
            at = put_char(out, at, cap, '.');
        }
#if APP_MINOR == 0
        if (unit == 1u) {
            break; /* 1.0.0 shows tenths */
        }
#endif
        at = put_char(out, at, cap, (char)('0' + v / unit % 10u));
    }
    return at;
}

static uint32_t put_text(char *out, uint32_t at, uint32_t cap, const char *text)
{
    while (*text != '\0') {
        at = put_char(out, at, cap, *text++);
    }
    return at;
}

uint32_t sensor_text(const struct sensor *s, char *out, uint32_t cap)
{
    uint32_t n = put_centi(out, 0u, cap, sensor_value(s));
#if APP_MINOR >= 1
    n = put_text(out, n, cap, " degrees, between ");
    n = put_centi(out, n, cap, s->lowest);
    n = put_text(out, n, cap, " and ");
    n = put_centi(out, n, cap, s->highest);
    if (s->alarm != 0u) {
        n = put_text(out, n, cap, (s->alarm & 1u) != 0u ? ", too cold" : ", too warm");
    }
#else
    n = put_text(out, n, cap, " degrees");
#endif
    return n;
}

int sensor_self_test(struct sensor *s)
{
    uint32_t rounds = 16u;
#if APP_MINOR >= 1
    rounds = 32u;
#endif
    while (rounds-- != 0u) {
        sensor_sample(s);
        if (sensor_value(s) < -4000 || sensor_value(s) > 8500) {
            return -1;
        }
    }
    return 0;
}
