/* Source of old.elf and new.elf; see README.md. */
int table[4] = {1, 2, 3, 4};
#ifdef NEW
int __attribute__((noinline)) fresh(int x) { return x * 77 + table[1]; }
int __attribute__((noinline)) scale(int x) { return x * 3 + 1; }
#else
int __attribute__((noinline)) gone(int x) { return x ^ 0x55; }
int __attribute__((noinline)) scale(int x) { return x * 5; }
#endif
int *__attribute__((noinline)) moved(int i) { return table + i; }
void __attribute__((noreturn)) start(void)
{
#ifdef NEW
    *moved(0) = fresh(2);
#else
    *moved(0) = gone(2);
#endif
    for (;;)
        *moved(1) = scale(*moved(2));
}
int unchanged(int x) { return scale(x) + *moved(3); }
