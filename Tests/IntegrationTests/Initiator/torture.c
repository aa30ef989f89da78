/* A client of a tortured cluster, on libiscsi: reads and writes a region that it shares with others, and writes down what it saw.
 *
 *   torture torture URL[,URL...] SEED CLIENT MILLISECONDS FIRST COUNT DEPTH PER-SECOND PATIENCE-MS HISTORY
 *   torture read    URL SEED CLIENT FIRST COUNT HISTORY
 *   torture heal    URL SEED CLIENT FIRST COUNT HISTORY LBA...
 *
 * `torture`: each URL is a path to the same volume. One session at a time; when it breaks, or a command has no answer for PATIENCE-MS, the next
 * login goes to the same path at once, or to another one after REPLACEMENT_MS, as a host must (see docs/protocol.md).
 * Nothing is repeated: each attempt is an operation of its own. A sector's contents follow from the seed, the number of the write
 * (unique in the run) and the address, so that a mixture of two writes is seen. `read` reads the region once; each read must
 * come back, where it is MEDIUM ERROR in pieces of BLOCK sectors. `heal` writes the blocks at each LBA anew, and reads them.
 *
 * A signal asks for a task management function of the session: SIGNAL_RESET LOGICAL UNIT RESET, SIGNAL_ABORT ABORT TASK SET, SIGNAL_CLEAR
 * CLEAR TASK SET. When it is answered, whatever of the client's was in flight has been aborted.
 *
 * A line of the history for each operation that has ended (times in microseconds of CLOCK_MONOTONIC):
 *
 *   W NUMBER LBA SECTORS BEGIN END STATUS           write; STATUS: o GOOD, f failed, l lost with its connection, a aborted by the
 *                                                   client's own function, t TASK ABORTED, d BAD: MEDIUM ERROR at the sector BAD
 *   C NUMBER LBA EXPECTED BEGIN END STATUS          COMPARE AND WRITE of one sector; also m: miscompare
 *   R LBA SECTORS BEGIN END NUMBER:SECTORS...       read with GOOD; number 0: zeros
 *   M LBA SECTORS BEGIN END BAD                     read with MEDIUM ERROR at the sector BAD
 *   X LBA SECTORS BEGIN END WHAT                    read that holds what was never written, or a MEDIUM ERROR that says not where
 *   T FUNCTION BEGIN END RESPONSE                   task management function; END 0: it was lost with its connection
 *   B PATH TIME                                     the session broke
 *   L PATH TIME                                     a login was answered
 *   S KEY ASC-ASCQ COUNT                            how often a sense was seen; at the end
 *   E TIME                                          the end: all that was begun has a line
 *
 * END of a lost command is when the next login was answered: it has taken effect by then, or never will (I4). 0: no login came. That of
 * an aborted one is when its function was answered (R6). */
#define _GNU_SOURCE
#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512
#define WRITE_MAX 64
#define READ_MAX 128
#define DEPTH_MAX 64
#define PATHS_MAX 16
#define SENSES_MAX 64
#define REPLACEMENT_MS 5000 /* longer than the time that a proof of life is good for (4 s) */
#define LOGIN_SECONDS 10
#define ENDING_MS 90000     /* how long the end waits for a login, so that what was lost has an end */
#define BLOCK 8             /* sectors of a data block */
#define SIGNAL_RESET 40     /* real-time signals that the C library has no use for */
#define SIGNAL_ABORT 41
#define SIGNAL_CLEAR 42

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t mix(uint64_t z) {
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

enum kind { WRITE, READ, COMPARE };
enum state { IDLE, IN_FLIGHT, LOST, ABORTED };

struct slot {
    enum state state;
    enum kind kind;
    uint64_t number, lba, expected, begin;
    uint32_t sectors;
    struct scsi_task *task;
    unsigned char data[WRITE_MAX * SECTOR];
};

static struct {
    char *urls[PATHS_MAX];
    int paths, path, lun, broken;
    struct iscsi_context *context;
    FILE *history;
    uint64_t seed, client, first, count, random, counter, patience_ms, broken_at;
    int function;           /* the task management function that is under way; 0: none */
    int is_answered, has_burst;
    uint64_t function_begin, function_end;
    struct slot slots[DEPTH_MAX];
    int depth;
    uint64_t *seen; /* what each sector held when it was read last: what COMPARE AND WRITE expects */
    struct {
        int key, ascq;
        uint64_t count;
    } senses[SENSES_MAX];
} t;

/* The function that a signal has asked for. */
static volatile sig_atomic_t wanted;

static void want(int number) {
    wanted = number == SIGNAL_RESET ? ISCSI_TM_LUN_RESET : number == SIGNAL_ABORT ? ISCSI_TM_ABORT_TASK_SET : ISCSI_TM_CLEAR_TASK_SET;
}

static uint64_t draw(uint64_t below) {
    t.random = mix(t.random);
    return t.random % below;
}

static void fill_sector(unsigned char *out, uint64_t number, uint64_t lba) {
    uint64_t state = mix(t.seed ^ mix(number ^ mix(lba)));
    memcpy(out, &number, 8);
    memcpy(out + 8, &lba, 8);
    for (int i = 16; i < SECTOR; i += 8) {
        state = mix(state);
        memcpy(out + i, &state, 8);
    }
}

/* The number of the write that a sector holds; -1 where no write has ever made it. */
static int64_t number_of(const unsigned char *sector, uint64_t lba) {
    static const unsigned char zeros[SECTOR];
    if (memcmp(sector, zeros, SECTOR) == 0) return 0;
    unsigned char expected[SECTOR];
    uint64_t number;
    memcpy(&number, sector, 8);
    fill_sector(expected, number, lba);
    return memcmp(sector, expected, SECTOR) == 0 ? (int64_t)number : -1;
}

static void note_sense(int key, int ascq) {
    for (int i = 0; i < SENSES_MAX; i++) {
        if (t.senses[i].count == 0) {
            t.senses[i].key = key;
            t.senses[i].ascq = ascq;
        }
        if (t.senses[i].key == key && t.senses[i].ascq == ascq) {
            t.senses[i].count++;
            return;
        }
    }
}

static void write_line(const struct slot *slot, uint64_t end, char status) {
    if (slot->kind == WRITE)
        fprintf(t.history, "W %" PRIu64 " %" PRIu64 " %u %" PRIu64 " %" PRIu64 " %c\n", slot->number, slot->lba, slot->sectors,
                slot->begin, end, status);
    else if (slot->kind == COMPARE)
        fprintf(t.history, "C %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %c\n", slot->number, slot->lba,
                slot->expected, slot->begin, end, status);
}

static void write_read(const struct slot *slot, uint64_t end, const unsigned char *data) {
    int64_t numbers[READ_MAX];
    for (uint32_t i = 0; i < slot->sectors; i++) {
        numbers[i] = number_of(data + i * SECTOR, slot->lba + i);
        if (numbers[i] < 0) {
            uint64_t words[2];
            memcpy(words, data + i * SECTOR, 16);
            fprintf(t.history, "X %" PRIu64 " 1 %" PRIu64 " %" PRIu64 " begins-with-number-%" PRIu64 "-of-lba-%" PRIu64 "\n",
                    slot->lba + i, slot->begin, end, words[0], words[1]);
            return;
        }
        t.seen[slot->lba + i - t.first] = (uint64_t)numbers[i];
    }
    fprintf(t.history, "R %" PRIu64 " %u %" PRIu64 " %" PRIu64, slot->lba, slot->sectors, slot->begin, end);
    for (uint32_t i = 0; i < slot->sectors;) {
        uint32_t run = 1;
        while (i + run < slot->sectors && numbers[i + run] == numbers[i]) run++;
        fprintf(t.history, " %" PRId64 ":%u", numbers[i], run);
        i += run;
    }
    fputc('\n', t.history);
}

/* The sector that a MEDIUM ERROR names in its sense data (fixed format, behind their length); -1 where it names none. */
static int64_t bad_sector(const struct scsi_task *task) {
    const unsigned char *sense = task->datain.data + 2;
    if (task->datain.size < 9 || (sense[0] & 0xff) != 0xf0) return -1;
    return (int64_t)sense[3] << 24 | sense[4] << 16 | sense[5] << 8 | sense[6];
}

/* Writes down a MEDIUM ERROR. */
static void write_damage(const struct slot *slot, uint64_t end, const struct scsi_task *task) {
    int64_t bad = bad_sector(task);
    if (bad < 0)
        fprintf(t.history, "X %" PRIu64 " %u %" PRIu64 " %" PRIu64 " medium-error-without-address\n", slot->lba, slot->sectors,
                slot->begin, end);
    else if (slot->kind == READ)
        fprintf(t.history, "M %" PRIu64 " %u %" PRIu64 " %" PRIu64 " %" PRId64 "\n", slot->lba, slot->sectors, slot->begin, end, bad);
    else
        fprintf(t.history, "%c %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " d %" PRId64 "\n",
                slot->kind == WRITE ? 'W' : 'C', slot->number, slot->lba, slot->kind == WRITE ? slot->sectors : slot->expected,
                slot->begin, end, bad);
}

static void ended(struct iscsi_context *context, int status, void *data, void *private) {
    struct slot *slot = private;
    struct scsi_task *task = data;
    (void)context;
    uint64_t end = now_us();
    slot->task = NULL;
    if (slot->state == ABORTED) {
        write_line(slot, t.function_end, 'a');
        slot->state = IDLE;
        return;
    }
    if (status == SCSI_STATUS_GOOD) {
        if (slot->kind != READ)
            write_line(slot, end, 'o');
        else if (task && task->datain.size == (int)(slot->sectors * SECTOR))
            write_read(slot, end, task->datain.data);
        else
            fprintf(t.history, "X %" PRIu64 " %u %" PRIu64 " %" PRIu64 " has-%d-bytes\n", slot->lba, slot->sectors, slot->begin,
                    end, task ? task->datain.size : -1);
        slot->state = IDLE;
    } else if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR || status == SCSI_STATUS_TIMEOUT) {
        t.broken = 1;
        slot->state = LOST;
    } else {
        char letter = status == SCSI_STATUS_TASK_ABORTED ? 't' : 'f';
        if (status == SCSI_STATUS_CHECK_CONDITION && task) {
            note_sense((int)task->sense.key, task->sense.ascq);
            if (task->sense.key == SCSI_SENSE_MISCOMPARE) letter = 'm';
            if (task->sense.key == SCSI_SENSE_MEDIUM_ERROR) letter = 'd';
        } else {
            note_sense(-1, status);
        }
        if (letter == 'd')
            write_damage(slot, end, task);
        else
            write_line(slot, end, letter);
        slot->state = IDLE;
    }
    if (task && status != SCSI_STATUS_CANCELLED) scsi_free_scsi_task(task);
}

/* Begins an operation; none where the slot's turn brings nothing to do. */
static void begin(struct slot *slot) {
    uint64_t choice = draw(100);
    slot->begin = now_us();
    slot->kind = choice < 50 ? WRITE : choice < 92 ? READ : COMPARE;
    uint32_t longest = slot->kind == WRITE ? WRITE_MAX : slot->kind == READ ? READ_MAX : 1;
    /* Mostly short and aligned like a file system's; sometimes any length at any place. */
    slot->sectors = draw(4) ? (uint32_t)(draw(4) + 1) * 8 : (uint32_t)draw(longest) + 1;
    if (slot->sectors > longest) slot->sectors = longest;
    slot->lba = draw(t.count - slot->sectors + 1);
    if (draw(4) && slot->kind != COMPARE) slot->lba -= slot->lba % 8;
    slot->lba += t.first;
    struct scsi_task *task;
    if (slot->kind == READ) {
        task = iscsi_read16_task(t.context, t.lun, slot->lba, slot->sectors * SECTOR, SECTOR, 0, 0, 0, 0, 0, ended, slot);
    } else {
        slot->number = (t.client << 40) | ++t.counter;
        if (slot->kind == WRITE) {
            for (uint32_t i = 0; i < slot->sectors; i++) fill_sector(slot->data + i * SECTOR, slot->number, slot->lba + i);
            task = iscsi_write16_task(t.context, t.lun, slot->lba, slot->data, slot->sectors * SECTOR, SECTOR, 0, 0, 0, 0, 0,
                                      ended, slot);
        } else {
            slot->expected = t.seen[slot->lba - t.first];
            if (slot->expected) fill_sector(slot->data, slot->expected, slot->lba);
            else memset(slot->data, 0, SECTOR);
            fill_sector(slot->data + SECTOR, slot->number, slot->lba);
            task = iscsi_compareandwrite_task(t.context, t.lun, slot->lba, slot->data, 2 * SECTOR, SECTOR, 0, 0, 0, 0, 0, ended,
                                              slot);
        }
    }
    slot->task = task;
    slot->state = task ? IN_FLIGHT : LOST;
    if (!task) t.broken = 1;
}

static void write_function(uint64_t end, uint32_t response) {
    fprintf(t.history, "T %d %" PRIu64 " %" PRIu64 " %u\n", t.function, t.function_begin, end, response);
}

static void answered(struct iscsi_context *context, int status, void *data, void *private) {
    (void)context;
    (void)private;
    if (status != SCSI_STATUS_GOOD || !data) {
        t.broken = 1;
        return;
    }
    uint32_t response = *(uint32_t *)data;
    t.function_end = now_us();
    write_function(t.function_end, response);
    if (response == 0) t.is_answered = 1;
    else t.function = 0;
}

/* Sends the function that is wanted when everything before it has been sent, and ends what it has aborted when it is answered. */
static void manage(void) {
    if (t.is_answered) {
        t.is_answered = 0;
        t.function = 0;
        for (int i = 0; i < t.depth; i++) {
            if (t.slots[i].state != IN_FLIGHT) continue;
            t.slots[i].state = ABORTED;
            if (iscsi_scsi_cancel_task(t.context, t.slots[i].task) == 0) continue;
            fprintf(stderr, "a command in flight cannot be cancelled\n");
            exit(2);
        }
    } else if (t.function) {
        if (now_us() > t.function_begin + t.patience_ms * 1000) t.broken = 1;
    } else if (wanted && t.has_burst && iscsi_out_queue_length(t.context) == 0) {
        t.function = wanted;
        wanted = t.has_burst = 0;
        t.function_begin = now_us();
        if (iscsi_task_mgmt_async(t.context, t.lun, (enum iscsi_task_mgmt_funcs)t.function, 0xffffffff, 0, answered, NULL) < 0)
            t.broken = 1;
    }
}

static void leave(void) {
    if (t.function && !t.is_answered) write_function(0, 255);
    t.function = t.is_answered = t.has_burst = 0;
    if (t.context) iscsi_destroy_context(t.context);
    t.context = NULL;
    t.broken = 0;
    t.broken_at = now_us();
    fprintf(t.history, "B %d %" PRIu64 "\n", t.path, t.broken_at);
    for (int i = 0; i < t.depth; i++)
        if (t.slots[i].state == IN_FLIGHT) t.slots[i].state = LOST;
}

/* One attempt to log in. What was lost before has its end when it succeeds. */
static void log_in(void) {
    int path = t.path;
    if (t.paths > 1 && draw(2)) path = (int)draw((uint64_t)t.paths);
    if (path != t.path && t.broken_at) {
        uint64_t earliest = t.broken_at + REPLACEMENT_MS * 1000;
        if (now_us() < earliest) {
            usleep(100000);
            return;
        }
    }
    char name[64];
    snprintf(name, sizeof name, "iqn.2026-01.org.ashlar.test:torture-%" PRIu64, t.client);
    struct iscsi_context *context = iscsi_create_context(name);
    struct iscsi_url *url = context ? iscsi_parse_full_url(context, t.urls[path]) : NULL;
    if (!url) {
        fprintf(stderr, "%s: %s\n", t.urls[path], context ? iscsi_get_error(context) : "no memory");
        exit(2);
    }
    iscsi_set_isid_random(context, 0xB5000 + (unsigned)t.client, 1);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(context, ISCSI_HEADER_DIGEST_NONE_CRC32C);
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_timeout(context, LOGIN_SECONDS);
    t.lun = url->lun;
    int is_in = iscsi_full_connect_sync(context, url->portal, url->lun) == 0;
    iscsi_destroy_url(url);
    if (!is_in) {
        iscsi_destroy_context(context);
        usleep(100000);
        return;
    }
    iscsi_set_timeout(context, (int)((t.patience_ms + 999) / 1000));
    uint64_t at = now_us();
    t.context = context;
    t.path = path;
    t.broken = 0;
    fprintf(t.history, "L %d %" PRIu64 "\n", path, at);
    for (int i = 0; i < t.depth; i++) {
        if (t.slots[i].state != LOST) continue;
        write_line(&t.slots[i], at, 'l');
        t.slots[i].state = IDLE;
    }
}

static int count_in(enum state state) {
    int count = 0;
    for (int i = 0; i < t.depth; i++) count += t.slots[i].state == state;
    return count;
}

static int usage(void) {
    fprintf(stderr, "usage: see the head of torture.c; 1 to %d commands, %d sectors or more\n", DEPTH_MAX, READ_MAX);
    return 2;
}

static int begin_history(char **a, const char *path) {
    for (char *url = strtok(a[0], ","); url && t.paths < PATHS_MAX; url = strtok(NULL, ",")) t.urls[t.paths++] = url;
    t.seed = strtoull(a[1], NULL, 10);
    t.client = strtoull(a[2], NULL, 10);
    t.random = mix(t.seed ^ mix(t.client));
    t.seen = calloc(t.count, sizeof *t.seen);
    t.history = fopen(path, "w");
    if (!t.history) perror(path);
    return t.paths > 0 && t.seen && t.history;
}

static int end_history(void) {
    for (int i = 0; i < t.depth; i++)
        if (t.slots[i].state != IDLE) write_line(&t.slots[i], 0, 'l');
    for (int i = 0; i < SENSES_MAX && t.senses[i].count; i++)
        fprintf(t.history, "S %d %04x %" PRIu64 "\n", t.senses[i].key, (unsigned)t.senses[i].ascq, t.senses[i].count);
    fprintf(t.history, "E %" PRIu64 "\n", now_us());
    if (t.context) {
        iscsi_logout_sync(t.context);
        iscsi_destroy_context(t.context);
    }
    return fclose(t.history) == 0 ? 0 : 2;
}

static int command_torture(char **a) {
    uint64_t start = now_us(), until = start + strtoull(a[3], NULL, 10) * 1000, per_second = strtoull(a[7], NULL, 10), begun = 0;
    t.first = strtoull(a[4], NULL, 10);
    t.count = strtoull(a[5], NULL, 10);
    t.depth = atoi(a[6]);
    t.patience_ms = strtoull(a[8], NULL, 10);
    if (t.depth < 1 || t.depth > DEPTH_MAX || t.count < READ_MAX || per_second == 0 || !begin_history(a, a[9])) return usage();
    t.path = (int)draw((uint64_t)t.paths);
    for (;;) {
        uint64_t now = now_us();
        int is_over = now >= until;
        if (is_over && count_in(IN_FLIGHT) == 0 && count_in(LOST) == 0 && !t.function) break;
        if (now >= until + ENDING_MS * 1000ull) break;
        if (!t.context) {
            log_in();
            continue;
        }
        /* What is due by now; after a pause no burst. */
        uint64_t due = (now - start) * per_second / 1000000;
        if (due > begun + (uint64_t)t.depth) begun = due - (uint64_t)t.depth;
        manage();
        /* A function finds something to abort: as much as there may be is sent before it. */
        if (wanted && !t.function && !t.has_burst) {
            due = begun + (uint64_t)t.depth;
            t.has_burst = 1;
        } else if (wanted || t.function) {
            due = begun;
        }
        for (int i = 0; i < t.depth && !is_over && begun < due && !t.broken; i++) {
            if (t.slots[i].state != IDLE) continue;
            begin(&t.slots[i]);
            begun++;
        }
        struct pollfd entry = {.fd = iscsi_get_fd(t.context), .events = (short)iscsi_which_events(t.context)};
        if (poll(&entry, 1, 5) < 0) entry.revents = 0;
        if (iscsi_service(t.context, entry.revents) < 0) t.broken = 1;
        if (t.broken) leave();
    }
    return end_history();
}

/* One command that must come back: with GOOD, or with MEDIUM ERROR, which is answered with 0; -1: it has to be tried again. */
static int once(struct slot *slot) {
    struct scsi_task *task;
    slot->begin = now_us();
    if (slot->kind == READ) {
        task = iscsi_read16_sync(t.context, t.lun, slot->lba, slot->sectors * SECTOR, SECTOR, 0, 0, 0, 0, 0);
    } else {
        slot->number = (t.client << 40) | ++t.counter;
        for (uint32_t i = 0; i < slot->sectors; i++) fill_sector(slot->data + i * SECTOR, slot->number, slot->lba + i);
        task = iscsi_write16_sync(t.context, t.lun, slot->lba, slot->data, slot->sectors * SECTOR, SECTOR, 0, 0, 0, 0, 0);
    }
    int result = -1;
    if (task && task->status == SCSI_STATUS_GOOD && (slot->kind == WRITE || task->datain.size == (int)(slot->sectors * SECTOR))) {
        if (slot->kind == WRITE)
            write_line(slot, now_us(), 'o');
        else
            write_read(slot, now_us(), task->datain.data);
        result = 1;
    } else if (!task || task->status != SCSI_STATUS_CHECK_CONDITION) {
        leave();
        if (slot->kind == WRITE) write_line(slot, 0, 'l');
    } else {
        note_sense((int)task->sense.key, task->sense.ascq);
        if (task->sense.key == SCSI_SENSE_MEDIUM_ERROR) {
            write_damage(slot, now_us(), task);
            result = 0;
        } else {
            if (slot->kind == WRITE) write_line(slot, now_us(), 'f');
            usleep(50000);
        }
    }
    if (task) scsi_free_scsi_task(task);
    return result;
}

static int begin_reading(char **a) {
    t.first = strtoull(a[3], NULL, 10);
    t.count = strtoull(a[4], NULL, 10);
    t.patience_ms = ENDING_MS;
    return t.count != 0 && begin_history(a, a[5]);
}

static int command_read(char **a) {
    if (!begin_reading(a)) return usage();
    uint64_t until = now_us() + ENDING_MS * 1000ull, narrow_until = 0;
    for (uint64_t at = 0; at < t.count && now_us() < until;) {
        if (!t.context) {
            log_in();
            continue;
        }
        struct slot slot = {.kind = READ, .lba = t.first + at};
        uint32_t longest = at < narrow_until ? BLOCK : READ_MAX;
        slot.sectors = t.count - at < longest ? (uint32_t)(t.count - at) : longest;
        int result = once(&slot);
        if (result == 0 && longest != BLOCK) narrow_until = at + slot.sectors;
        else if (result >= 0) at += slot.sectors;
    }
    if (now_us() >= until) fprintf(t.history, "X %" PRIu64 " %" PRIu64 " 0 0 not-read-in-time\n", t.first, t.count);
    return end_history();
}

static int command_heal(char **a, int blocks) {
    if (!begin_reading(a)) return usage();
    uint64_t until = now_us() + ENDING_MS * 1000ull;
    int done = 0;
    struct slot slot = {.kind = WRITE, .sectors = BLOCK};
    while (done < blocks && now_us() < until) {
        if (!t.context) {
            log_in();
            continue;
        }
        slot.lba = strtoull(a[6 + done], NULL, 10);
        int result = once(&slot);
        if (result == 0) break;
        if (result < 0) continue;
        if (slot.kind == READ) done++;
        slot.kind = slot.kind == WRITE ? READ : WRITE;
    }
    if (done < blocks) fprintf(t.history, "X %" PRIu64 " %d 0 0 not-healed\n", slot.lba, BLOCK);
    return end_history();
}

int main(int argc, char **argv) {
    /* Who starts the program may have blocked them. */
    sigset_t signals;
    sigemptyset(&signals);
    for (int number = SIGNAL_RESET; number <= SIGNAL_CLEAR; number++) {
        struct sigaction action = {.sa_handler = want, .sa_flags = SA_RESTART};
        sigaction(number, &action, NULL);
        sigaddset(&signals, number);
    }
    sigprocmask(SIG_UNBLOCK, &signals, NULL);
    if (argc == 12 && !strcmp(argv[1], "torture")) return command_torture(argv + 2);
    if (argc == 8 && !strcmp(argv[1], "read")) return command_read(argv + 2);
    if (argc > 8 && !strcmp(argv[1], "heal")) return command_heal(argv + 2, argc - 8);
    return usage();
}
