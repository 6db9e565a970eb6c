/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Tries whether the pages of requests can be read with given bases: loaded before the capture
 * program, which takes what was found out here. docs/design/ebpf.md, "From a page to its bytes".
 */
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "ebpf/block_probe_abi.h"
#include "ebpf/kernel_types.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, fs_u32);
    __type(value, struct fs_probe);
} probe SEC(".maps");

const volatile fs_u32 issue_argument = 0;
const volatile fs_u64 page_struct_bytes = 64;

SEC("raw_tp/block_rq_issue")
int on_probe(struct bpf_raw_tracepoint_args* ctx) {
    struct request* rq = (struct request*)(issue_argument ? ctx->args[1] : ctx->args[0]);
    fs_u32 zero = 0;
    struct fs_probe* p = bpf_map_lookup_elem(&probe, &zero);
    if (!p || (BPF_CORE_READ(rq, cmd_flags) & kOpMask) != kOpRead) return 0;
    if (BPF_CORE_READ(rq, __sector) << 9 != p->offset) return 0;
    struct gendisk* disk;
    if (bpf_core_field_exists(((struct request___before_5_17*)0)->rq_disk))
        disk = BPF_CORE_READ((struct request___before_5_17*)rq, rq_disk);
    else
        disk = BPF_CORE_READ(rq, q, disk);
    if (BPF_CORE_READ(disk, major) != p->major || BPF_CORE_READ(disk, first_minor) != p->minor)
        return 0;
    if (p->vmemmap_symbol && p->page_offset_symbol) {
        fs_u64 base = 0;
        if (!bpf_probe_read_kernel(&base, sizeof(base), (const void*)p->vmemmap_symbol))
            p->vmemmap_base = base;
        if (!bpf_probe_read_kernel(&base, sizeof(base), (const void*)p->page_offset_symbol))
            p->page_offset_base = base;
    }
    struct bio* bio = BPF_CORE_READ(rq, bio);
    const fs_u32 index = BPF_CORE_READ(bio, bi_iter.bi_idx);
    struct bio_vec* vecs = BPF_CORE_READ(bio, bi_io_vec);
    struct bio_vec* vec = (struct bio_vec*)((char*)vecs + index * bpf_core_type_size(struct bio_vec));
    const fs_u64 page = (fs_u64)BPF_CORE_READ(vec, bv_page);
    const fs_u64 frame = (page - p->vmemmap_base) / page_struct_bytes;
    const fs_u64 address = (frame << 12) + p->page_offset_base + BPF_CORE_READ(vec, bv_offset);
    p->found[0] = p->found[1] = 0;
    p->failed = bpf_probe_read_kernel(p->found, sizeof(p->found), (const void*)address) != 0;
    p->page = page;
    p->request = (fs_u64)rq;
    __sync_fetch_and_add(&p->seen, 1);
    return 0;
}
