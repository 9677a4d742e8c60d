// The same headers in C++, and a call of each half of the library.
#include <cstdio>

HEADERS

int main()
{
    sow_session session{};
    sow_selftest_report report{};
    session.nb_frag = 1000;
    std::printf("arena %u, %s\n", static_cast<unsigned>(sow_core_arena_size(session.nb_frag, 232, 0)),
                sow_selftest_text(report.clause));
    return 0;
}
