/* An iSCSI initiator for the tests, on libiscsi.
 *
 *   initiator write    URL JOURNAL SEED DEPTH MILLISECONDS FIRST COUNT STRIDE OFFSET LENGTH
 *   initiator verify   URL SEED FIRST COUNT JOURNAL [JOURNAL...]
 *   initiator pingpong URL URL SEED COUNT
 *
 * `write` writes sectors at random places of [FIRST, FIRST + COUNT) with DEPTH commands in flight, none of which overlap. Each
 * write has a number; a sector's contents follow from the seed, the number and its address. A command that fails, or whose
 * connection breaks, is repeated with the same contents until it is acknowledged; then, and only then, a line
 * "number address sectors" is appended to the journal. With STRIDE > 1 only single sectors whose address is OFFSET modulo STRIDE
 * are written, else runs of up to LENGTH sectors. At the end of the time no new ones are begun, and those in flight are seen
 * through. Exit code 0: all acknowledged; 2: refused for good; 3: not acknowledged in time.
 *
 * `verify` reads the region: each sector must hold what the last line about it says, or zeros where there is none.
 * Numbers of several journals must not meet in one sector.
 *
 * `pingpong` writes a sector through one URL and reads it through the other at once, turn by turn. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512
#define LENGTH_MAX 256
#define DEPTH_MAX 128
#define STALL_MS 60000      /* a connection without progress for so long is given up */
#define PATIENCE_MS 180000  /* and the whole run when nothing was acknowledged for so long */

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t mix(uint64_t z) {
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static void fill_sector(unsigned char *out, uint64_t seed, uint64_t number, uint64_t lba) {
    uint64_t state = mix(seed ^ mix(number ^ mix(lba)));
    memcpy(out, &number, 8);
    memcpy(out + 8, &lba, 8);
    for (int i = 16; i < SECTOR; i += 8) {
        state = mix(state);
        memcpy(out + i, &state, 8);
    }
}

/* ---- sessions ---- */

static struct iscsi_context *log_in(const char *url, int *lun, unsigned isid, int quiet) {
    struct iscsi_context *context = iscsi_create_context("iqn.2026-01.org.ashlar.test:initiator");
    if (!context) return NULL;
    struct iscsi_url *parsed = iscsi_parse_full_url(context, url);
    if (!parsed) {
        fprintf(stderr, "%s\n", iscsi_get_error(context));
        exit(2);
    }
    iscsi_set_isid_random(context, 0xA5000 + isid, 1);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(context, ISCSI_HEADER_DIGEST_NONE_CRC32C);
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_timeout(context, 45);
    *lun = parsed->lun;
    if (iscsi_full_connect_sync(context, parsed->portal, parsed->lun) != 0) {
        if (!quiet) fprintf(stderr, "login to %s: %s\n", url, iscsi_get_error(context));
        iscsi_destroy_url(parsed);
        iscsi_destroy_context(context);
        return NULL;
    }
    iscsi_destroy_url(parsed);
    return context;
}

static struct iscsi_context *log_in_patiently(const char *url, int *lun, unsigned isid) {
    uint64_t deadline = now_ms() + PATIENCE_MS;
    while (now_ms() < deadline) {
        struct iscsi_context *context = log_in(url, lun, isid, 1);
        if (context) return context;
        usleep(100000);
    }
    fprintf(stderr, "no login to %s within %d ms\n", url, PATIENCE_MS);
    exit(3);
}

/* ---- write ---- */

enum slot_state { IDLE, IN_FLIGHT, REPEAT };

struct slot {
    enum slot_state state;
    uint64_t number, lba, not_before;
    uint32_t sectors;
    unsigned char data[LENGTH_MAX * SECTOR];
};

static struct {
    struct iscsi_context *context;
    const char *url;
    int lun, broken;
    FILE *journal;
    uint64_t seed, first, count, stride, offset, length, next_number, random, acknowledged, last_progress, repeats, logins;
    unsigned char *busy;
    struct slot slots[DEPTH_MAX];
    int depth;
} w;

static void written(struct iscsi_context *context, int status, void *data, void *private) {
    struct slot *slot = private;
    struct scsi_task *task = data;
    (void)context;
    if (status == SCSI_STATUS_GOOD) {
        fprintf(w.journal, "%" PRIu64 " %" PRIu64 " %u\n", slot->number, slot->lba, slot->sectors);
        for (uint32_t i = 0; i < slot->sectors; i++) w.busy[slot->lba - w.first + i] = 0;
        slot->state = IDLE;
        w.acknowledged++;
        w.last_progress = now_ms();
    } else {
        if (status == SCSI_STATUS_CHECK_CONDITION && task) {
            int key = task->sense.key;
            if (key == SCSI_SENSE_MEDIUM_ERROR || key == SCSI_SENSE_ILLEGAL_REQUEST || key == SCSI_SENSE_DATA_PROTECTION ||
                key == SCSI_SENSE_HARDWARE_ERROR) {
                fprintf(stderr, "write %" PRIu64 " at %" PRIu64 " refused: sense key %d ascq %04x\n", slot->number, slot->lba,
                        key, task->sense.ascq);
                fflush(w.journal);
                _exit(2);
            }
        } else if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR || status == SCSI_STATUS_TIMEOUT) {
            w.broken = 1;
        }
        slot->state = REPEAT;
        slot->not_before = now_ms() + 20;
        w.repeats++;
    }
    if (task) scsi_free_scsi_task(task);
}

static void send_slot(struct slot *slot) {
    slot->state = IN_FLIGHT;
    struct scsi_task *task = iscsi_write16_task(w.context, w.lun, slot->lba, slot->data, slot->sectors * SECTOR, SECTOR, 0, 0, 0,
                                                0, 0, written, slot);
    if (!task) {
        slot->state = REPEAT;
        w.broken = 1;
    }
}

static int choose(struct slot *slot) {
    for (int attempt = 0; attempt < 64; attempt++) {
        w.random = mix(w.random);
        uint64_t at = w.random % w.count;
        uint32_t sectors = 1;
        if (w.stride > 1) {
            at = at - at % w.stride + w.offset;
            if (at >= w.count) continue;
        } else {
            sectors = 1 + (uint32_t)((w.random >> 32) % w.length);
            if (at + sectors > w.count) sectors = (uint32_t)(w.count - at);
        }
        int is_free = 1;
        for (uint32_t i = 0; i < sectors; i++) is_free &= !w.busy[at + i];
        if (!is_free) continue;
        for (uint32_t i = 0; i < sectors; i++) w.busy[at + i] = 1;
        slot->number = w.next_number++;
        slot->lba = w.first + at;
        slot->sectors = sectors;
        for (uint32_t i = 0; i < sectors; i++) fill_sector(slot->data + i * SECTOR, w.seed, slot->number, slot->lba + i);
        return 1;
    }
    return 0;
}

/* Sends what is to be sent; returns how many slots are not idle. */
static int fill_window(int may_begin) {
    int pending = 0;
    uint64_t now = now_ms();
    for (int i = 0; i < w.depth && !w.broken; i++) {
        struct slot *slot = &w.slots[i];
        if (slot->state == IDLE && may_begin && choose(slot)) send_slot(slot);
        else if (slot->state == REPEAT && slot->not_before <= now) send_slot(slot);
    }
    for (int i = 0; i < w.depth; i++) pending += w.slots[i].state != IDLE;
    return pending;
}

static int command_write(char **a) {
    w.url = a[0];
    w.journal = fopen(a[1], "w");
    if (!w.journal) {
        perror(a[1]);
        return 2;
    }
    w.seed = strtoull(a[2], NULL, 10);
    w.depth = atoi(a[3]);
    uint64_t duration = strtoull(a[4], NULL, 10);
    w.first = strtoull(a[5], NULL, 10);
    w.count = strtoull(a[6], NULL, 10);
    w.stride = strtoull(a[7], NULL, 10);
    w.offset = strtoull(a[8], NULL, 10);
    w.length = strtoull(a[9], NULL, 10);
    if (w.depth < 1 || w.depth > DEPTH_MAX || w.length < 1 || w.length > LENGTH_MAX || !w.count) return 2;
    w.busy = calloc(w.count, 1);
    w.random = mix(w.seed ^ (w.offset << 40));
    w.next_number = 1 + (w.offset << 40);
    w.context = log_in_patiently(w.url, &w.lun, (unsigned)w.offset);
    w.logins = 1;
    uint64_t end = now_ms() + duration;
    uint64_t session_began = now_ms();
    w.last_progress = now_ms();
    while (1) {
        int pending = fill_window(now_ms() < end);
        if (!w.broken && pending == 0 && now_ms() >= end) break;
        if (!w.broken) {
            struct pollfd p = {iscsi_get_fd(w.context), (short)iscsi_which_events(w.context), 0};
            if (poll(&p, 1, 20) < 0 && errno != EINTR) w.broken = 1;
            else if (iscsi_service(w.context, p.revents) < 0) w.broken = 1;
        }
        uint64_t now = now_ms();
        if (now - (w.last_progress > session_began ? w.last_progress : session_began) > STALL_MS) w.broken = 1;
        if (now - w.last_progress > PATIENCE_MS) {
            fprintf(stderr, "nothing acknowledged for %d ms, %d writes pending\n", PATIENCE_MS, pending);
            return 3;
        }
        if (w.broken) {
            /* Cancels what is in flight: it becomes REPEAT. */
            iscsi_destroy_context(w.context);
            for (int i = 0; i < w.depth; i++)
                if (w.slots[i].state == IN_FLIGHT) w.slots[i].state = REPEAT;
            w.context = log_in_patiently(w.url, &w.lun, (unsigned)w.offset);
            w.logins++;
            w.broken = 0;
            session_began = now_ms();
        }
    }
    iscsi_logout_sync(w.context);
    iscsi_destroy_context(w.context);
    if (fclose(w.journal) != 0) {
        perror("journal");
        return 2;
    }
    printf("{\"acknowledged\":%" PRIu64 ",\"repeats\":%" PRIu64 ",\"logins\":%" PRIu64 "}\n", w.acknowledged, w.repeats, w.logins);
    return 0;
}

/* ---- verify ---- */

static int read_sectors(struct iscsi_context *context, int lun, uint64_t lba, uint32_t sectors, unsigned char *out) {
    for (int attempt = 0; attempt < 100; attempt++) {
        struct scsi_task *task = iscsi_read16_sync(context, lun, lba, sectors * SECTOR, SECTOR, 0, 0, 0, 0, 0);
        if (task && task->status == SCSI_STATUS_GOOD && task->datain.size == (int)(sectors * SECTOR)) {
            memcpy(out, task->datain.data, sectors * SECTOR);
            scsi_free_scsi_task(task);
            return 0;
        }
        int may_repeat = task && (task->status == SCSI_STATUS_BUSY || task->status == SCSI_STATUS_TASK_SET_FULL ||
                                  (task->status == SCSI_STATUS_CHECK_CONDITION &&
                                   (task->sense.key == SCSI_SENSE_UNIT_ATTENTION || task->sense.key == SCSI_SENSE_NOT_READY ||
                                    task->sense.key == SCSI_SENSE_COMMAND_ABORTED)));
        if (!may_repeat) {
            fprintf(stderr, "read at %" PRIu64 ": %s\n", lba, iscsi_get_error(context));
            if (task) scsi_free_scsi_task(task);
            return -1;
        }
        scsi_free_scsi_task(task);
        usleep(50000);
    }
    return -1;
}

static int command_verify(char **a, int n) {
    uint64_t seed = strtoull(a[1], NULL, 10), first = strtoull(a[2], NULL, 10), count = strtoull(a[3], NULL, 10);
    uint64_t *last = calloc(count, sizeof *last), lines = 0, wrong = 0;
    for (int i = 4; i < n; i++) {
        FILE *journal = fopen(a[i], "r");
        if (!journal) {
            perror(a[i]);
            return 2;
        }
        uint64_t number, lba;
        unsigned sectors;
        while (fscanf(journal, "%" SCNu64 " %" SCNu64 " %u", &number, &lba, &sectors) == 3) {
            lines++;
            for (unsigned k = 0; k < sectors; k++)
                if (lba + k >= first && lba + k < first + count) last[lba + k - first] = number;
        }
        fclose(journal);
    }
    int lun;
    struct iscsi_context *context = log_in_patiently(a[0], &lun, 99);
    unsigned char *buffer = malloc(LENGTH_MAX * SECTOR), expected[SECTOR];
    for (uint64_t at = 0; at < count; at += LENGTH_MAX) {
        uint32_t sectors = count - at < LENGTH_MAX ? (uint32_t)(count - at) : LENGTH_MAX;
        if (read_sectors(context, lun, first + at, sectors, buffer) != 0) return 2;
        for (uint32_t k = 0; k < sectors; k++) {
            if (last[at + k]) fill_sector(expected, seed, last[at + k], first + at + k);
            else memset(expected, 0, SECTOR);
            if (memcmp(expected, buffer + k * SECTOR, SECTOR) == 0) continue;
            uint64_t found[2];
            memcpy(found, buffer + k * SECTOR, 16);
            if (wrong++ < 10)
                fprintf(stderr, "sector %" PRIu64 ": write %" PRIu64 " was acknowledged last, found %" PRIu64 " of %" PRIu64 "\n",
                        first + at + k, last[at + k], found[0], found[1]);
        }
    }
    iscsi_logout_sync(context);
    iscsi_destroy_context(context);
    printf("{\"writes\":%" PRIu64 ",\"sectors\":%" PRIu64 ",\"wrong\":%" PRIu64 "}\n", lines, count, wrong);
    return wrong ? 1 : 0;
}

/* ---- pingpong ---- */

static int command_pingpong(char **a) {
    uint64_t seed = strtoull(a[2], NULL, 10), count = strtoull(a[3], NULL, 10);
    int lun[2];
    struct iscsi_context *context[2];
    unsigned char data[SECTOR], found[SECTOR];
    for (int i = 0; i < 2; i++) context[i] = log_in_patiently(a[i], &lun[i], (unsigned)i);
    for (uint64_t number = 1; number <= count; number++) {
        int writer = (int)(number % 2);
        /* Few places, so that each is written again and again. */
        uint64_t lba = mix(seed ^ number) % 64;
        fill_sector(data, seed, number, lba);
        struct scsi_task *task = iscsi_write16_sync(context[writer], lun[writer], lba, data, SECTOR, SECTOR, 0, 0, 0, 0, 0);
        if (!task || task->status != SCSI_STATUS_GOOD) {
            fprintf(stderr, "write %" PRIu64 ": %s\n", number, iscsi_get_error(context[writer]));
            return 2;
        }
        scsi_free_scsi_task(task);
        if (read_sectors(context[!writer], lun[!writer], lba, 1, found) != 0) return 2;
        if (memcmp(data, found, SECTOR) != 0) {
            fprintf(stderr, "write %" PRIu64 " at %" PRIu64 " is not what the other target reads\n", number, lba);
            return 1;
        }
    }
    for (int i = 0; i < 2; i++) {
        iscsi_logout_sync(context[i]);
        iscsi_destroy_context(context[i]);
    }
    printf("{\"turns\":%" PRIu64 "}\n", count);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 12 && !strcmp(argv[1], "write")) return command_write(argv + 2);
    if (argc >= 7 && !strcmp(argv[1], "verify")) return command_verify(argv + 2, argc - 2);
    if (argc == 6 && !strcmp(argv[1], "pingpong")) return command_pingpong(argv + 2);
    fprintf(stderr, "usage: see the head of initiator.c\n");
    return 2;
}
