/* A boot stub outside the source tree, which offers its services. */
#include <sow_boot.h>

extern const struct sow_config config;
int entry(void);

const struct sow_config config;

int entry(void)
{
    uint32_t vectors;

    return sow_boot(&config, &vectors);
}
