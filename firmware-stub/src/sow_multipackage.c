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

void sow_ans32(struct sow_command *c, uint32_t v)
{
    sow_put32(c->ans + c->len, v);
    c->len = (uint8_t)(c->len + 4u);
}

static void send_part(struct sow *s, uint8_t start, uint8_t stop, uint8_t form)
{
    s->ans_next = start;
    s->ans_stop = stop;
    s->ans_form = form;
}

/* MultiPackBufferReq, the one message without a token: StartByte, StopByte (inclusive). */
static void buffer_request(struct sow *s, uint8_t start, uint8_t stop)
{
    if (start >= s->ans_len || stop < start) send_part(s, 0, 1, SOW_ANS_ERROR);
    else send_part(s, start, stop < s->ans_len ? (uint8_t)(stop + 1u) : s->ans_len, SOW_ANS_FRAGMENT);
}

void sow_multipackage_message(struct sow *s, uint32_t now, const uint8_t *data, uint32_t len)
{
    struct sow_command c;
    uint8_t package = SOW_PACKAGE_MULTIPACKAGE, answered = 0;

    if (len == 4 && data[0] == PREFIX) {
        data++;
        len--;
    }
    if (len == 3 && data[0] == CID_BUFFER) {
        buffer_request(s, data[1], data[2]);
        return;
    }
    if (len < 2) return;
    len--;
    s->mpa_token = data[len] & 3u;
    s->ans_len = 0;
    c.now = now;
    c.group = SOW_UNICAST;
    c.at_once = 1;
    c.room = SOW_ANS_MAX;
    while (len) {
        const uint8_t *ans = data; /* a prefix is copied */
        uint32_t used = 1;
        uint8_t n = 1;

        if (data[0] & PREFIX) {
            package = data[0] & 0x7fu;
            if (package > SOW_PACKAGE_FWMGMT || s->ans_len >= SOW_ANS_BUFFER) break;
        } else {
            /* What might not be answered is not done. */
            if (s->ans_len > SOW_ANS_BUFFER - SOW_ANS_MAX) break;
            used = sow_command(s, &c, package, data, len);
            if (!used) break;
            ans = c.ans;
            n = c.len;
            answered |= n;
        }
        memcpy(s->ans + s->ans_len, ans, n);
        s->ans_len = (uint8_t)(s->ans_len + n);
        data += used;
        len -= used;
    }
    send_part(s, 0, answered ? s->ans_len : 0, SOW_ANS_AUTO);
}

void sow_multipackage_command(struct sow *s, struct sow_command *c)
{
    /* NbPackages, { PackageIdentifier, version, FPort } of each package */
    static const uint8_t packages[] = {5,
                                       SOW_PACKAGE_MULTIPACKAGE, 1, SOW_PORT_MULTIPACKAGE,
                                       SOW_PACKAGE_CLOCKSYNC, 0, SOW_PORT_CLOCKSYNC,
                                       SOW_PACKAGE_MCSETUP, 0, SOW_PORT_MCSETUP,
                                       SOW_PACKAGE_DATABLOCK, 0, SOW_PORT_DATABLOCK,
                                       SOW_PACKAGE_FWMGMT, 1, SOW_PORT_FWMGMT};

    memcpy(c->ans + 1, packages, sizeof packages);
    c->len = 1u + sizeof packages;
    c->ans[6] = c->ans[9] = c->ans[12] = s->package_version;
}

int sow_multipackage_answer(struct sow *s, struct sow_uplink *up)
{
    uint8_t n = (uint8_t)(s->ans_stop - s->ans_next), at = 0;

    up->port = SOW_PORT_MULTIPACKAGE;
    if (s->ans_form == SOW_ANS_ERROR) {
        up->data[0] = CID_BUFFER;
        up->data[1] = 0xff;
        at = 2;
        n = 0;
        s->ans_next = s->ans_stop;
    } else if (s->ans_form == SOW_ANS_FRAGMENT || n + 1u > s->max_payload) {
        s->ans_form = SOW_ANS_FRAGMENT; /* all the pieces of one answer */
        up->data[0] = CID_BUFFER;
        up->data[1] = s->ans_next;
        at = 2;
        if (n > s->max_payload - 3u) n = (uint8_t)(s->max_payload - 3u);
    }
    memcpy(up->data + at, s->ans + s->ans_next, n);
    s->ans_next = (uint8_t)(s->ans_next + n);
    up->data[at + n] = s->mpa_token;
    up->len = (uint8_t)(at + n + 1u);
    return SOW_DONE;
}
