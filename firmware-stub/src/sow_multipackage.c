/* TS007 multi-package access 1.0.0, FPort 225.
 *
 * A message is commands of several packages and a token at the end; a byte 0x80 | PackageIdentifier selects the
 * package of the commands after it, at first package 0, this one. The answers gather in the ANS buffer, each
 * prefix copied, and leave in one uplink or in MultiPackBufferFrag pieces. The buffer is kept, so that the
 * server can ask for a piece again.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sow_packages.h"

#define CID_BUFFER 2u
#define PREFIX 0x80u

void sow_multipackage_send(struct sow *s, uint32_t start, uint32_t stop, uint32_t form)
{
    s->ans_next = (uint8_t)start;
    s->ans_stop = (uint8_t)stop;
    s->ans_form = (uint8_t)form;
}

void sow_multipackage_begin(struct sow *s)
{
    uint32_t len = s->left;
    const uint8_t *end = s->arg + len;

    /* MultiPackBufferReq, the one message without a token: StartByte, StopByte (inclusive). */
    if ((len == 3 || (len == 4 && s->arg[0] == PREFIX)) && end[-3] == CID_BUFFER) {
        uint32_t start = end[-2], stop = end[-1] + 1u;

        if (stop > s->ans_len) stop = s->ans_len;
        if (stop <= start) start = stop = 0xff; /* no such bytes: the answer says so in their place */
        sow_multipackage_send(s, start, stop, SOW_ANS_FRAGMENT);
    } else if (len >= 2) {
        s->mpa_token = end[-1] & 3u;
        s->ans_len = 0;
        s->left--;
        s->at_once = 1;
    }
}

/* DevPackageReq: NbPackages, { PackageIdentifier, version, FPort } of each package */
void sow_multipackage_command(struct sow *s, struct sow_uplink *up)
{
    uint8_t *to = up->data + 1;

    *to++ = SOW_PACKAGE_DIAG;
    for (const struct sow_package *p = sow_packages; p->id < SOW_PACKAGE_DIAG; p++) {
        *to++ = p->id;
        *to++ = sow_package_version(s, p->id);
        *to++ = p->port;
    }
    up->len = 2u + 3u * SOW_PACKAGE_DIAG;
}

int sow_multipackage_answer(struct sow *s, struct sow_uplink *up)
{
    uint32_t n = (uint32_t)(s->ans_stop - s->ans_next), at = 0;

    up->port = SOW_PORT_MULTIPACKAGE;
    if (s->ans_form == SOW_ANS_FRAGMENT || n + 1u > s->max_payload) {
        s->ans_form = SOW_ANS_FRAGMENT; /* all the pieces of one answer */
        up->data[0] = CID_BUFFER;
        up->data[1] = s->ans_next;
        at = 2;
        if (n > s->max_payload - 3u) n = s->max_payload - 3u;
    }
    if (n != 0) memcpy(up->data + at, s->ans + s->ans_next, n);
    s->ans_next = (uint8_t)(s->ans_next + n);
    if (s->ans_next == s->ans_stop) s->ans_form = SOW_ANS_NONE;
    up->data[at + n] = s->mpa_token;
    up->len = (uint8_t)(at + n + 1u);
    return SOW_DONE;
}
