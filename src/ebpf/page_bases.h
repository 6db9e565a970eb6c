// From a page of a request to its bytes: the kernel maps all memory in one piece, and keeps its
// page structures in another; the two bases turn the address of one into the other. They are found
// out by trying: docs/design/ebpf.md, "From a page to its bytes".
//
// Blocking (a few direct reads of one sector). Needs the rights to load programs; the search for
// bases without the kernel's symbols needs CAP_SYS_ADMIN too (page frame numbers).
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace farshore {

struct KernelLayout {
    uint32_t issue_argument = 0;  // which argument of block_rq_issue is the request
    uint64_t page_struct_bytes = 64;
    uint32_t page_writeback_bit = 0;
    uint64_t vmemmap_base = 0;
    uint64_t page_offset_base = 0;
};

// Everything but the bases. kUnsupported: a kernel without BTF, or of another kind of machine.
Result<KernelLayout> read_kernel_layout();
// Fills in the bases, proved by reading through them. `device`: any disk, of which one sector is
// read. kUnsupported when none can be found, kForbidden without the rights.
Status find_page_bases(const std::string& device, KernelLayout& layout);

// What libbpf said since the last call; for errors. Any thread.
std::string take_bpf_log();
// Has libbpf's words kept for take_bpf_log instead of printed. Idempotent.
void keep_bpf_log();

}  // namespace farshore
