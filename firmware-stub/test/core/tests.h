#ifndef TESTS_H
#define TESTS_H

void update_tests(void);
void power_tests(void);
void hang_tests(void);
void big_tests(void);
void rot_tests(void);
void refuse_tests(void);

#endif
