/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The few fields of the kernel's structures that the program reads. Their places are found at load
 * time in the running kernel's BTF (CO-RE), so nothing here depends on a kernel's version; a field
 * that only some kernels have is asked for with bpf_core_field_exists.
 */
#ifndef FARSHORE_EBPF_KERNEL_TYPES_H
#define FARSHORE_EBPF_KERNEL_TYPES_H

#define FS_KERNEL __attribute__((preserve_access_index))

struct gendisk {
    int major;
    int first_minor;
} FS_KERNEL;

struct request_queue {
    struct gendisk* disk; /* from 5.15 on */
} FS_KERNEL;

struct page {
    unsigned long flags;
    unsigned long compound_head;
} FS_KERNEL;

struct bio_vec {
    struct page* bv_page;
    unsigned int bv_len;
    unsigned int bv_offset;
} FS_KERNEL;

struct bvec_iter {
    unsigned long long bi_sector;
    unsigned int bi_size;
    unsigned int bi_idx;
    unsigned int bi_bvec_done;
} FS_KERNEL;

struct bio {
    struct bio* bi_next;
    struct bvec_iter bi_iter;
    struct bio_vec* bi_io_vec;
} FS_KERNEL;

struct request {
    struct request_queue* q;
    unsigned int cmd_flags;
    unsigned int __data_len;
    unsigned long long __sector;
    struct bio* bio;
} FS_KERNEL;

struct request___before_5_17 {
    struct gendisk* rq_disk;
} FS_KERNEL;

enum pageflags { PG_writeback___any = 0 };

/* Values that have been the same from 5.10 on. */
enum {
    kOpMask = 0xff,
    kOpRead = 0,
    kOpWrite = 1,
    kOpFlush = 2,
    kOpDiscard = 3,
    kOpSecureErase = 5,
    kOpWriteZeroes = 9,
    kOpScsiOut = 33, /* 5.10 only */
    kOpDriverOut = 35
};

#endif
