/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * What the kernel program (block_trace.bpf.c) and its user (block_trace.cc) agree on: the events in
 * the BPF ring, the state that both map, and the sum over a request's pages. Plain C that both
 * compilers take; all fields are naturally aligned, without padding. docs/design/ebpf.md.
 *
 * A program stays pinned when the process that loaded it ends, so a newer process may find an older
 * program: kFsTraceAbi says whether it can go on with it.
 */
#ifndef FARSHORE_EBPF_BLOCK_TRACE_ABI_H
#define FARSHORE_EBPF_BLOCK_TRACE_ABI_H

#ifdef __cplusplus
#include <cstdint>
typedef uint64_t fs_u64;
typedef uint32_t fs_u32;
typedef uint16_t fs_u16;
typedef uint8_t fs_u8;
#else
typedef unsigned long long fs_u64;
typedef unsigned int fs_u32;
typedef unsigned short fs_u16;
typedef unsigned char fs_u8;
#endif

enum {
    kFsTraceAbi = 1,
    kFsMaxTracedDisks = 64,
    kFsPieceBytes = 4096,
    kFsSmallPieceBytes = 512,
    /* One byte of the kernel's dirty map stands for this much of a disk: 4 MiB a TiB. */
    kFsDirtyShift = 18,
    kFsDirtyPageBytes = 4096,
    /* Of a request that is larger (8 MiB) only the place is remembered. */
    kFsMaxPieces = 2048,
    /* Of a range that is larger (4 GiB, so a discard) not even that: everything differs. */
    kFsMaxMarks = 16384,
    kFsMarkRun = 128,
    kFsInFlightRequests = 16384,
    /* Bios of one discard; of more, everything counts as different. */
    kFsMaxRanges = 32
};

enum fs_event_kind {
    kFsEventData = 1,    /* a piece of a write's payload */
    kFsEventZero = 2,    /* a write-zeroes request */
    kFsEventDiscard = 3, /* a range of a discard or secure erase */
    kFsEventFlush = 4,   /* a flush has ended well */
    kFsEventComplete = 5 /* a write, zero or discard has ended */
};

enum fs_event_flags {
    kFsFirst = 1,     /* the first event of its request */
    kFsLast = 2,      /* the last one that carries payload */
    kFsSummed = 4,    /* of kFsEventComplete: `sum` is that of the pages now */
    kFsFailed = 8,    /* of kFsEventComplete: the device reported an error */
    kFsLost = 64,     /* of kFsEventComplete: what it wrote is marked */
    kFsUnstable = 32, /* its pages may change while they are written: they are summed */
    kFsRanges = 16    /* of kFsEventComplete: a discard of several ranges, each told at its issue */
};

struct fs_event {
    fs_u64 request; /* tells requests that are in flight apart; used again afterwards */
    fs_u64 drops;   /* fs_trace_state.drops when the event was made */
    fs_u64 offset;  /* bytes, on the disk */
    fs_u64 request_offset;
    fs_u64 sum;
    fs_u32 length; /* bytes */
    fs_u32 request_length;
    fs_u16 disk; /* index in fs_trace_state.disks */
    fs_u8 kind;
    fs_u8 flags;
    fs_u32 reserved;
    /* kFsEventData: `length` bytes follow */
};

struct fs_in_flight {
    fs_u64 offset;
    fs_u32 length;
    fs_u16 disk;
    fs_u8 lost : 1;   /* nothing of it, or not all, is in the ring */
    fs_u8 summed : 1; /* its pages are summed again at its end */
    fs_u8 ranges : 1; /* several ranges that do not follow one another */
    fs_u8 reserved;
};

struct fs_traced_disk {
    fs_u32 major;
    fs_u32 minor;
    fs_u32 dirty_page; /* first page of the dirty map */
    fs_u32 dirty_pages;
    fs_u64 whole;       /* requests of which not even the place is known */
    fs_u64 whole_taken; /* ... that the user has dealt with */
};

struct fs_trace_state {
    fs_u32 abi;
    fs_u32 disk_count;
    fs_u32 waiting; /* the consumer sleeps and wants to be woken, once */
    fs_u32 primed;  /* what was written before this trace began is on todo */
    fs_u64 drops;   /* changes: something is only marked in the dirty map, or was lost whole */
    fs_u64 sum_key;
    fs_u64 position_base; /* of the events' positions, so that they only ever grow */
    fs_u64 requests;
    fs_u64 unreadable;      /* pages */
    fs_u64 misses_taken[2]; /* of the two programs, see block_trace.cc; the user's own */
    struct fs_traced_disk disks[kFsMaxTracedDisks];
};

/* Sum over whole multiples of 32 bytes; only ever compared with another sum of the same request. */
struct fs_sum {
    fs_u64 lane[4];
};

#define FS_SUM_STEP(sum, word, n) \
    ((sum)->lane[n] = (((sum)->lane[n] ^ (word)) * 0x9E3779B97F4A7C15ull) + ((sum)->lane[n] >> 29))

static inline void fs_sum_begin(struct fs_sum* sum, fs_u64 key) {
    sum->lane[0] = key;
    sum->lane[1] = key + 1;
    sum->lane[2] = key + 2;
    sum->lane[3] = key + 3;
}
static inline fs_u64 fs_sum_end(const struct fs_sum* sum) {
    fs_u64 all = sum->lane[0];
    all = (all ^ sum->lane[1]) * 0x9E3779B97F4A7C15ull + (all >> 31);
    all = (all ^ sum->lane[2]) * 0x9E3779B97F4A7C15ull + (all >> 31);
    all = (all ^ sum->lane[3]) * 0x9E3779B97F4A7C15ull + (all >> 31);
    return all;
}

#endif
