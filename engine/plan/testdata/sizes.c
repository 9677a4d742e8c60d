/* Prints what the device library needs, for the planner to be held against: first its constants, then the arena for
 * each line "fragments fragment_size codec_ram" of its input. */
#include <stdio.h>

#include "sow_core.h"
#include "sow_core_private.h"
#include "sow_patch.h"

int main(void)
{
    unsigned m, s, codec;

    printf("%u %u %u %u\n", SOW_FREEZES, SOW_CORE_SPARES, (unsigned)SOW_SCRATCH, (unsigned)((sizeof(struct sow_patch) + 7u) / 8u * 8u));
    while (scanf("%u %u %u", &m, &s, &codec) == 3)
        printf("%u\n", (unsigned)sow_core_arena_size((uint16_t)m, (uint8_t)s, codec));
    return 0;
}
