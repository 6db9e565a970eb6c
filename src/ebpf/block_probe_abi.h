/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * What block_probe.bpf.c and its user agree on. The user reads one sector of a disk into a page
 * that holds a number of its own; the program looks into that page before the disk fills it.
 */
#ifndef FARSHORE_EBPF_BLOCK_PROBE_ABI_H
#define FARSHORE_EBPF_BLOCK_PROBE_ABI_H

#include "ebpf/block_trace_abi.h"

struct fs_probe {
    /* in */
    fs_u32 major;
    fs_u32 minor;
    fs_u64 offset;         /* bytes, of the read that is looked at */
    fs_u64 vmemmap_symbol; /* addresses of the kernel's variables; 0: not known */
    fs_u64 page_offset_symbol;
    /* in, and out where the symbols are known */
    fs_u64 vmemmap_base;
    fs_u64 page_offset_base;
    /* out */
    fs_u64 seen;    /* reads */
    fs_u64 page;    /* address of its struct page */
    fs_u64 request; /* address of the request: some address that the kernel maps directly */
    fs_u64 failed;  /* not 0: there is nothing to read at the address that the bases give */
    fs_u64 found[2];
};

#endif
