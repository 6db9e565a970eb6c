/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Captures the writes of chosen disks where the kernel hands them to the disks' drivers: each
 * request's payload is copied, in the order of issue, into a BPF ring; its end is told by an event
 * of its own. What the ring cannot take, or what cannot be read, is marked in a dirty map. Rules and
 * reasons: docs/design/ebpf.md.
 *
 * Nothing here is ever forgotten: each path on which a change of a disk is not completely in the
 * ring ends in lost(), for the range and once more when the request has ended.
 */
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "ebpf/block_trace_abi.h"
#include "ebpf/kernel_types.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Sizes of the maps are set before they are made. */
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, kFsInFlightRequests);
    __type(key, fs_u64);
    __type(value, struct fs_in_flight);
} in_flight SEC(".maps");

struct dirty_page {
    fs_u8 granule[kFsDirtyPageBytes];
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, fs_u32);
    __type(value, struct dirty_page);
} dirty SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, fs_u32);
    __type(value, struct fs_trace_state);
} trace_state SEC(".maps");

/* A walk over the pages of a request, one piece of at most kFsPieceBytes a step. */
struct walk {
    struct bio* bio;          /* of the rest */
    struct bio_vec* vecs;     /* of the bio under way */
    fs_u64 address;           /* of the rest of the vector under way */
    fs_u64 offset;            /* on the disk */
    fs_u32 vec_left;
    fs_u32 bio_left;          /* bytes in vectors not begun */
    fs_u32 index;             /* of the next vector */
    fs_u32 done;              /* bytes of the next vector that are done */
    fs_u32 failed;
    fs_u32 stable;            /* every page is under write-back of its own file */
    struct fs_event event;    /* what the events have in common */
    struct fs_sum sum;
};

/* One walk of each kind on a CPU. Issues do not interrupt each other; the end of a request can
 * interrupt the end of another, which `busy` tells. */
enum { kIssueWalk = 0, kCompleteWalk = 1 };
struct walk_room {
    struct walk walk;
    fs_u32 busy;
    fs_u32 reserved;
    fs_u8 page[kFsPieceBytes];
};
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 2);
    __type(key, fs_u32);
    __type(value, struct walk_room);
} walks SEC(".maps");

/* Known when it is loaded. */
const volatile fs_u32 issue_argument = 0;    /* before 5.11 the first one is the queue */
const volatile fs_u64 page_struct_bytes = 64;
const volatile fs_u64 vmemmap_base = 0;
const volatile fs_u64 page_offset_base = 0;
const volatile fs_u32 page_writeback_bit = 0;
const volatile fs_u64 sum_key = 0;

static __always_inline struct fs_trace_state* state_of(void) {
    fs_u32 zero = 0;
    return bpf_map_lookup_elem(&trace_state, &zero);
}

static __always_inline struct walk_room* room_of(fs_u32 kind) {
    return bpf_map_lookup_elem(&walks, &kind);
}

static __always_inline struct gendisk* disk_of(struct request* rq) {
    if (bpf_core_field_exists(((struct request___before_5_17*)0)->rq_disk))
        return BPF_CORE_READ((struct request___before_5_17*)rq, rq_disk);
    return BPF_CORE_READ(rq, q, disk);
}

/* Functions that are not static are verified by themselves, once, with any arguments: without that
 * the verifier would walk all that follows for each disk and each count. They take numbers only,
 * because before 5.12 nothing else may be given to them. */
#define FS_VERIFIED_ALONE __attribute__((noinline))

/* The disk's index, or -1. */
FS_VERIFIED_ALONE int find_disk(fs_u64 request) {
    struct fs_trace_state* state = state_of();
    if (!state) return -1;
    struct gendisk* disk = disk_of((struct request*)request);
    const fs_u32 major = BPF_CORE_READ(disk, major);
    const fs_u32 minor = BPF_CORE_READ(disk, first_minor);
    for (int i = 0; i < kFsMaxTracedDisks; ++i) {
        if (i >= state->disk_count) return -1;
        if (state->disks[i].major == major && state->disks[i].minor == minor) return i;
    }
    return -1;
}

FS_VERIFIED_ALONE int mark_granule(fs_u32 disk, fs_u64 granule) {
    struct fs_trace_state* state = state_of();
    if (!state || disk >= kFsMaxTracedDisks) return 1;
    const fs_u64 page = granule / kFsDirtyPageBytes;
    if (page >= state->disks[disk].dirty_pages) return 1;
    const fs_u32 key = state->disks[disk].dirty_page + page;
    struct dirty_page* bytes = bpf_map_lookup_elem(&dirty, &key);
    if (bytes) *(volatile fs_u8*)&bytes->granule[granule % kFsDirtyPageBytes] = 1;
    return 0;
}

FS_VERIFIED_ALONE int mark_run(fs_u32 disk, fs_u64 from, fs_u64 to) {
    for (int i = 0; i < kFsMarkRun; ++i)
        if (from + i > to || mark_granule(disk, from + i)) return 1;
    return 0;
}

/* Not even the place is known. */
FS_VERIFIED_ALONE int lost_whole(fs_u32 disk) {
    struct fs_trace_state* state = state_of();
    if (!state || disk >= kFsMaxTracedDisks) return 0;
    __sync_fetch_and_add(&state->disks[disk].whole, 1);
    __sync_fetch_and_add(&state->drops, 1);
    return 0;
}

/* The range differs, and is only marked. The marks come before the count. */
FS_VERIFIED_ALONE int lost(fs_u32 disk, fs_u64 offset, fs_u64 length) {
    struct fs_trace_state* state = state_of();
    if (!state || disk >= kFsMaxTracedDisks) return 0;
    const fs_u64 from = offset >> kFsDirtyShift;
    const fs_u64 to = length == 0 ? from : (offset + length - 1) >> kFsDirtyShift;
    if (to - from >= kFsMaxMarks) return lost_whole(disk);
    for (int i = 0; i < kFsMaxMarks / kFsMarkRun; ++i)
        if (mark_run(disk, from + i * kFsMarkRun, to)) break;
    __sync_fetch_and_add(&state->drops, 1);
    return 0;
}

/* The same for each bio of a request whose ranges do not follow one another. */
static __always_inline void lost_bios(fs_u32 disk, struct bio* bio) {
    for (int i = 0; i < kFsMaxRanges && bio; ++i) {
        lost(disk, BPF_CORE_READ(bio, bi_iter.bi_sector) << 9,
             BPF_CORE_READ(bio, bi_iter.bi_size));
        bio = BPF_CORE_READ(bio, bi_next);
    }
    if (bio) lost_whole(disk);
}

static __always_inline fs_u64 wake_flags(struct fs_trace_state* state) {
    if (!*(volatile fs_u32*)&state->waiting) return BPF_RB_NO_WAKEUP;
    *(volatile fs_u32*)&state->waiting = 0;
    return BPF_RB_FORCE_WAKEUP;
}

/* Copies `count` bytes at `from` behind the event. 0: it is in the ring. */
#define FS_EMIT_DATA(walk, state, from, count, kSlotBytes)                                   \
    ({                                                                                       \
        int result = -1;                                                                     \
        struct {                                                                             \
            struct fs_event event;                                                           \
            fs_u8 data[kSlotBytes];                                                          \
        }* slot = bpf_ringbuf_reserve(&events, sizeof(*slot), 0);                            \
        if (slot) {                                                                          \
            fs_u32 taken = (count);                                                          \
            if (taken > (kSlotBytes)) taken = (kSlotBytes);                                  \
            slot->event = (walk)->event;                                                     \
            slot->event.drops = *(volatile fs_u64*)&(state)->drops;                          \
            slot->event.offset = (walk)->offset;                                             \
            slot->event.length = taken;                                                      \
            if (bpf_probe_read_kernel(slot->data, taken, (const void*)(from)) == 0) {        \
                bpf_ringbuf_submit(slot, wake_flags(state));                                 \
                result = 0;                                                                  \
            } else {                                                                         \
                bpf_ringbuf_discard(slot, BPF_RB_NO_WAKEUP);                                 \
                __sync_fetch_and_add(&(state)->unreadable, 1);                               \
            }                                                                                \
        }                                                                                    \
        result;                                                                              \
    })

static __always_inline int emit_plain(struct fs_trace_state* state, const struct fs_event* event) {
    struct fs_event* slot = bpf_ringbuf_reserve(&events, sizeof(*slot), 0);
    if (!slot) return -1;
    *slot = *event;
    slot->drops = *(volatile fs_u64*)&state->drops;
    bpf_ringbuf_submit(slot, wake_flags(state));
    return 0;
}

static __always_inline fs_u64 page_address(const struct page* page) {
    const fs_u64 distance = (fs_u64)page - vmemmap_base;
    const fs_u64 frame = page_struct_bytes == 64 ? distance >> 6 : distance / page_struct_bytes;
    return (frame << 12) + page_offset_base;
}

/* The kernel writes a page of a file again when it changes during its write-back; nobody does so
 * for the buffers of direct I/O. */
static __always_inline int under_write_back(struct page* page) {
    unsigned long head = 0;
    bpf_probe_read_kernel(&head, sizeof(head), &page->compound_head);
    if (head & 1) page = (struct page*)(head - 1);
    unsigned long flags = 0;
    bpf_probe_read_kernel(&flags, sizeof(flags), (const void*)page);
    return (flags >> page_writeback_bit) & 1;
}

/* Moves to the next vector when the one under way is used up. 0: there is a piece; 1: the end. */
static __always_inline int next_piece(struct walk* w) {
    if (w->vec_left) return 0;
    if (!w->bio_left) {
        if (!w->bio) return 1;
        struct bio* bio = w->bio;
        w->vecs = BPF_CORE_READ(bio, bi_io_vec);
        w->bio_left = BPF_CORE_READ(bio, bi_iter.bi_size);
        w->index = BPF_CORE_READ(bio, bi_iter.bi_idx);
        w->done = BPF_CORE_READ(bio, bi_iter.bi_bvec_done);
        w->bio = BPF_CORE_READ(bio, bi_next);
        if (!w->bio_left) return 1;
    }
    struct bio_vec* vec =
        (struct bio_vec*)((char*)w->vecs + w->index * bpf_core_type_size(struct bio_vec));
    struct page* page = BPF_CORE_READ(vec, bv_page);
    const fs_u32 length = BPF_CORE_READ(vec, bv_len) - w->done;
    w->vec_left = length < w->bio_left ? length : w->bio_left;
    if (!w->vec_left) return 1;
    w->address = page_address(page) + BPF_CORE_READ(vec, bv_offset) + w->done;
    w->bio_left -= w->vec_left;
    w->index += 1;
    w->done = 0;
    if (w->stable && !under_write_back(page)) w->stable = 0;
    return 0;
}

/* One piece into the ring. Not 0: the walk has ended, well or not. */
FS_VERIFIED_ALONE int copy_piece(fs_u32 kind) {
    struct fs_trace_state* state = state_of();
    struct walk_room* room = room_of(kind);
    if (!state || !room) return 1;
    struct walk* w = &room->walk;
    if (next_piece(w)) return 1;
    const fs_u32 n = w->vec_left < kFsPieceBytes ? w->vec_left : kFsPieceBytes;
    if (w->offset + n == w->event.request_offset + w->event.request_length)
        w->event.flags |= kFsLast;
    if (!w->stable) w->event.flags |= kFsUnstable;
    int emitted;
    if (n <= kFsSmallPieceBytes)
        emitted = FS_EMIT_DATA(w, state, w->address, n, kFsSmallPieceBytes);
    else
        emitted = FS_EMIT_DATA(w, state, w->address, n, kFsPieceBytes);
    if (emitted) {
        w->failed = 1;
        return 1;
    }
    w->event.flags &= ~kFsFirst;
    w->address += n;
    w->offset += n;
    w->vec_left -= n;
    return 0;
}

/* One piece into the sum. */
FS_VERIFIED_ALONE int sum_piece(fs_u32 kind) {
    struct walk_room* room = room_of(kind);
    if (!room) return 1;
    struct walk* w = &room->walk;
    if (next_piece(w)) return 1;
    fs_u32 n = w->vec_left;
    if (n > kFsPieceBytes) n = kFsPieceBytes;
    if (bpf_probe_read_kernel(room->page, n, (const void*)w->address)) {
        w->failed = 1;
        return 1;
    }
    struct fs_sum sum = w->sum;
    const fs_u64* words = (const fs_u64*)room->page;
    for (int i = 0; i < kFsPieceBytes / 8; i += 4) {
        if (i * 8 >= n) break;
        FS_SUM_STEP(&sum, words[i], 0);
        FS_SUM_STEP(&sum, words[i + 1], 1);
        FS_SUM_STEP(&sum, words[i + 2], 2);
        FS_SUM_STEP(&sum, words[i + 3], 3);
    }
    w->sum = sum;
    w->address += n;
    w->offset += n;
    w->vec_left -= n;
    return 0;
}

/* A discard; several that were merged need not follow one another: each range is told by itself. */
static __always_inline void copy_ranges(struct fs_trace_state* state, struct walk* w,
                                        struct fs_in_flight* entry) {
    struct bio* bio = w->bio;
    for (int i = 0; i < kFsMaxRanges && bio; ++i) {
        w->event.offset = BPF_CORE_READ(bio, bi_iter.bi_sector) << 9;
        w->event.length = BPF_CORE_READ(bio, bi_iter.bi_size);
        bio = BPF_CORE_READ(bio, bi_next);
        if (i > 0 || bio) entry->ranges = 1;
        if (emit_plain(state, &w->event)) {
            w->failed = 1;
            return;
        }
        w->event.flags &= ~kFsFirst;
    }
    if (bio) w->failed = 1;
}

SEC("raw_tp/block_rq_issue")
int on_issue(struct bpf_raw_tracepoint_args* ctx) {
    struct request* rq = (struct request*)(issue_argument ? ctx->args[1] : ctx->args[0]);
    const fs_u32 op = BPF_CORE_READ(rq, cmd_flags) & kOpMask;
    if (!(op & 1)) return 0; /* changes nothing: the kernel's rule for all operations */
    const int disk = find_disk((fs_u64)rq);
    if (disk < 0) return 0;
    struct fs_trace_state* state = state_of();
    struct walk_room* room = room_of(kIssueWalk);
    if (!state || !room) return 0;
    __sync_fetch_and_add(&state->requests, 1);
    if (op == kOpDriverOut || op == kOpScsiOut) {
        /* A command that its sender wrote by hand: it may change anything. */
        lost_whole(disk);
        return 0;
    }
    fs_u64 key = (fs_u64)rq;
    struct fs_in_flight entry = {
        .offset = BPF_CORE_READ(rq, __sector) << 9,
        .length = BPF_CORE_READ(rq, __data_len),
        .disk = disk,
    };
    /* One that was put back is issued again as it was. Any other has ended unseen: the kernel leaves
     * this program out where it would interrupt itself. Nobody knows what became of it, and by the
     * time that the misses are counted its place here is another's. */
    struct fs_in_flight* before = bpf_map_lookup_elem(&in_flight, &key);
    if (before && (before->offset != entry.offset || before->length != entry.length)) {
        if (before->ranges)
            lost_whole(before->disk);
        else
            lost(before->disk, before->offset, before->length);
    }
    if (bpf_map_update_elem(&in_flight, &key, &entry, BPF_ANY)) {
        if (op == kOpDiscard || op == kOpSecureErase)
            lost_bios(disk, BPF_CORE_READ(rq, bio));
        else
            lost(disk, entry.offset, entry.length);
        return 0;
    }
    struct walk* w = &room->walk;
    w->bio = BPF_CORE_READ(rq, bio);
    w->offset = entry.offset;
    w->vec_left = w->bio_left = 0;
    w->failed = 0;
    w->stable = 1;
    w->event = (struct fs_event){.request = key,
                                 .offset = entry.offset,
                                 .request_offset = entry.offset,
                                 .length = entry.length,
                                 .request_length = entry.length,
                                 .disk = disk,
                                 .flags = kFsFirst};
    if (op == kOpWrite) {
        w->event.kind = kFsEventData;
        for (int i = 0; i < kFsMaxPieces; ++i)
            if (copy_piece(kIssueWalk)) break;
        if (w->offset != entry.offset + entry.length) w->failed = 1;
        if (!w->stable) entry.summed = 1;
    } else if (op == kOpWriteZeroes) {
        w->event.kind = kFsEventZero;
        if (emit_plain(state, &w->event)) w->failed = 1;
    } else if (op == kOpDiscard || op == kOpSecureErase) {
        w->event.kind = kFsEventDiscard;
        copy_ranges(state, w, &entry);
    } else {
        /* An operation that came after this was written: its place is remembered. */
        w->failed = 1;
    }
    if (w->failed) {
        if (entry.ranges)
            lost_bios(disk, BPF_CORE_READ(rq, bio));
        else
            lost(disk, entry.offset, entry.length);
        entry.lost = 1;
    }
    if (entry.lost || entry.summed || entry.ranges)
        bpf_map_update_elem(&in_flight, &key, &entry, BPF_ANY);
    return 0;
}

/* The sum of the pages of a request that has ended, as they are now. 0: not to be had. */
static __always_inline fs_u64 sum_of(struct request* rq, fs_u32 length) {
    struct walk_room* room = room_of(kCompleteWalk);
    if (!room || room->busy) return 0;
    room->busy = 1;
    struct walk* w = &room->walk;
    w->bio = BPF_CORE_READ(rq, bio);
    w->offset = 0;
    w->vec_left = w->bio_left = 0;
    w->failed = w->stable = 0;
    fs_sum_begin(&w->sum, sum_key);
    for (int i = 0; i < kFsMaxPieces; ++i)
        if (sum_piece(kCompleteWalk)) break;
    const fs_u64 sum = w->failed || w->offset != length ? 0 : fs_sum_end(&w->sum);
    room->busy = 0;
    return sum;
}

SEC("raw_tp/block_rq_complete")
int on_complete(struct bpf_raw_tracepoint_args* ctx) {
    struct request* rq = (struct request*)ctx->args[0];
    const int error = (int)ctx->args[1];
    const fs_u32 bytes = (fs_u32)ctx->args[2];
    const fs_u32 op = BPF_CORE_READ(rq, cmd_flags) & kOpMask;
    if (!(op & 1) && op != kOpFlush) return 0;
    const int disk = find_disk((fs_u64)rq);
    if (disk < 0) return 0;
    struct fs_trace_state* state = state_of();
    if (!state) return 0;
    fs_u64 key = (fs_u64)rq;
    struct fs_event event = {.request = key, .disk = disk};
    if (op == kOpFlush) {
        event.kind = kFsEventFlush;
        /* A flush that finds no room changes nothing that could be missed. */
        if (!error) emit_plain(state, &event);
        return 0;
    }
    if (op == kOpDriverOut || op == kOpScsiOut) {
        lost_whole(disk);
        return 0;
    }
    const fs_u64 offset = BPF_CORE_READ(rq, __sector) << 9;
    const fs_u32 length = BPF_CORE_READ(rq, __data_len);
    if (!length) return 0; /* a flush in the clothes of a write: it is not issued as one */
    struct fs_in_flight* found = bpf_map_lookup_elem(&in_flight, &key);
    if (!found) {
        /* Issued before this program was attached, or when no more could be remembered. */
        if (op == kOpDiscard || op == kOpSecureErase)
            lost_bios(disk, BPF_CORE_READ(rq, bio));
        else
            lost(disk, offset, length);
        return 0;
    }
    if (bytes < length) {
        /* A part has ended; the rest may be issued again, as a request of its own. */
        found->lost = 1;
        lost(disk, offset, length);
        return 0;
    }
    struct fs_in_flight entry = *found;
    bpf_map_delete_elem(&in_flight, &key);
    event.kind = kFsEventComplete;
    event.offset = event.request_offset = entry.offset;
    event.length = event.request_length = entry.length;
    if (error) event.flags |= kFsFailed;
    if (entry.ranges) event.flags |= kFsRanges;
    if (entry.lost) event.flags |= kFsLost;
    if (entry.ranges && (entry.lost || error)) {
        lost_bios(disk, BPF_CORE_READ(rq, bio));
    } else if (entry.lost) {
        lost(disk, entry.offset, entry.length);
    } else if (entry.summed && !error) {
        event.sum = sum_of(rq, entry.length);
        event.flags |= kFsSummed;
    }
    if (emit_plain(state, &event)) {
        if (entry.ranges)
            lost_bios(disk, BPF_CORE_READ(rq, bio));
        else
            lost(disk, entry.offset, entry.length);
    }
    return 0;
}
