/* The measuring part of the example application: a thermometer that is read, filtered and reported.
 *
 * Firmware 1.0.0 reports a smoothed reading. 1.1.0 adds extremes, an alarm and a finer resolution, which changes
 * most functions of this file and shifts everything behind them: an ordinary minor release.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SENSOR_H
#define SENSOR_H

#include <stdint.h>

#ifndef APP_MINOR
#define APP_MINOR 0
#endif

struct sensor {
    uint32_t noise;   /* state of the noise source */
    uint32_t samples; /* taken so far */
    int32_t smooth;   /* exponential average, 1/256 of a reading */
    int32_t season;   /* slow drift of the environment */
#if APP_MINOR >= 1
    int32_t lowest, highest;
    uint8_t alarm;    /* bit 0: too cold, bit 1: too warm */
    uint8_t alarms;   /* how often an alarm has begun */
#endif
};

#define SENSOR_REPORT_MAX 12u

void sensor_init(struct sensor *s, uint32_t seed);
void sensor_sample(struct sensor *s);                            /* take one reading */
int32_t sensor_value(const struct sensor *s);                    /* smoothed, 1/100 degree */
uint32_t sensor_report(const struct sensor *s, uint8_t *out);    /* for the air; returns bytes */
uint32_t sensor_text(const struct sensor *s, char *out, uint32_t cap); /* for the console; returns characters */
int sensor_self_test(struct sensor *s);                          /* 0: plausible */

#endif
