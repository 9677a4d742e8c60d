#include "kit.h"
#include "tests.h"

int main(void)
{
    update_tests();
    refuse_tests();
    big_tests();
    rot_tests();
    hang_tests();
    power_tests();
    printf("%lu checks\n", checks);
    return 0;
}
