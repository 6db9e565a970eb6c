#include "record/compare.h"

#include <fmt/core.h>

#include "record/record.h"

namespace farshore {

Status check_question(const CompareQuestion& question) {
    const uint64_t most = question.sum == kZeroSum ? kMaxCompareZeroBytes : kMaxCompareBytes;
    if (question.length_bytes == 0 || question.length_bytes > most ||
        question.offset_bytes % kSumBlockBytes != 0 || question.offset_bytes > kMaxDiskBytes)
        return fail(Code::kMalformed, fmt::format("a comparison of {} bytes at {}",
                                                  question.length_bytes, question.offset_bytes));
    return {};
}

}  // namespace farshore
