/* What the example application says of itself inside its image, right behind the vector table.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BEACON_H
#define BEACON_H

#include <stdint.h>

#define BEACON_INFO_OFFSET 192u /* from the start of the vector table, 48 vectors of 4 bytes */
#define BEACON_INFO_MAGIC 0x4f464e49u /* "INFO" */

enum beacon_verdict { BEACON_PASS = 0, BEACON_FAIL = 1, BEACON_HANG = 2 };

struct beacon_info {
    uint32_t magic;
    uint32_t version; /* as TS006 FWversion */
    uint32_t verdict; /* enum beacon_verdict: what its self-test will do */
};

#endif
