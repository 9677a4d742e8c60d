/* An application outside the source tree, over the services of that stub. */
#include <sow.h>

extern const struct sow_config config;
int entry(void);

const struct sow_config config;
static struct sow s;
static uint8_t arena[1024] SOW_ALIGNED;

int entry(void)
{
    static const struct sow_options options;
    struct sow_uplink up;
    uint32_t wake;

    (void)sow_open(&s, &config, &options, arena, sizeof arena, 0);
    sow_downlink(&s, 0, 201, 0, 0, 0);
    (void)sow_poll(&s, 0, &wake);
    return sow_uplink(&s, 0, &up);
}
