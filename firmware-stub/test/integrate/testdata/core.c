/* An application without the LoRaWAN layer, which opens the core itself. */
#include "hal.h"
#include "port.h"
#include "sow.h"

static struct sow_core core;
static uint8_t arena[1024] SOW_ALIGNED;

int main(void)
{
    const struct sow_config config = {&port, &map, &identity};

    hal_print("core:", sow_core_open(&core, &config, arena, sizeof arena));
    return 0;
}
