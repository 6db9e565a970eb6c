#include "record/return_question.h"

#include <fmt/core.h>

#include "record/record.h"

namespace farshore {
namespace {

Status check_ranges(const std::vector<ReturnRange>& ranges, uint64_t* total) {
    if (ranges.size() > kMaxReturnRanges)
        return fail(Code::kMalformed, fmt::format("{} ranges in one message", ranges.size()));
    uint64_t end = 0, sum = 0;
    for (const ReturnRange& range : ranges) {
        if (range.length_bytes == 0 || range.offset_bytes < end ||
            range.length_bytes > UINT64_MAX - range.offset_bytes)
            return fail(Code::kMalformed, "ranges that are out of order, or empty");
        end = range.offset_bytes + range.length_bytes;
        sum += range.length_bytes;
    }
    if (total != nullptr) *total = sum;
    return {};
}

}  // namespace

Status check_question(const ReturnQuestion& question) {
    if (question.disk >= kMaxDisks) return fail(Code::kMalformed, "a disk out of range");
    uint64_t total = 0;
    FS_TRY(check_ranges(question.ranges, &total));
    if (question.kind == ReturnKind::kChanged) {
        if (!question.ranges.empty() || question.from > question.to)
            return fail(Code::kMalformed, "a question for changes that makes no sense");
        return {};
    }
    if (question.kind != ReturnKind::kData) return fail(Code::kMalformed, "an unknown question");
    if (question.ranges.empty() || total > kMaxReturnBytes)
        return fail(Code::kMalformed, fmt::format("a question for {} bytes", total));
    return {};
}

Status check_answer(const ReturnAnswer& answer) {
    if (answer.verdict != ReturnVerdict::kOk && answer.verdict != ReturnVerdict::kUnknown)
        return fail(Code::kMalformed, "an unknown answer");
    if (answer.data.size() > kMaxReturnBytes)
        return fail(Code::kMalformed, "an answer that is too long");
    return check_ranges(answer.ranges, nullptr);
}

}  // namespace farshore
