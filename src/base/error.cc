#include "base/error.h"

#include <fmt/core.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace farshore {
namespace {

struct CodeRow {
    std::string_view name;
    int http;
    int exit;
    Retry retry;
};

constexpr std::array kRows{
#define FARSHORE_X(name, text, http, exit, retry) CodeRow{text, http, exit, Retry::retry},
    FARSHORE_ERROR_CODES(FARSHORE_X)
#undef FARSHORE_X
};

const CodeRow& row(Code code) { return kRows.at(static_cast<size_t>(code)); }

Code code_from_errno(int error_number) {
    switch (error_number) {
        case ENOSPC:
        case EDQUOT:
            return Code::kNoSpace;
        case ENOENT:
        case ENOTDIR:  // a part of the path is a file: nothing can be there
            return Code::kNotFound;
        case EISDIR:
            return Code::kInvalidArgument;
        case EEXIST:
            return Code::kAlreadyExists;
        case ETIMEDOUT:
            return Code::kTimeout;
        case ECONNREFUSED:
        case ECONNRESET:
        case ECONNABORTED:
        case EPIPE:
        case EHOSTUNREACH:
        case ENETUNREACH:
        case ENOTCONN:
            return Code::kConnectionLost;
        case EACCES:
        case EPERM:
            return Code::kForbidden;
        default:
            return Code::kIo;
    }
}

}  // namespace

std::string_view code_name(Code code) { return row(code).name; }

Code code_from_name(std::string_view name) {
    for (size_t i = 0; i < kRows.size(); ++i)
        if (kRows[i].name == name) return static_cast<Code>(i);
    return Code::kInternal;
}

int code_http_status(Code code) { return row(code).http; }
int code_exit_status(Code code) { return row(code).exit; }
Retry code_retry(Code code) { return row(code).retry; }

Error Error::from_errno(int error_number, std::string what, std::source_location where) {
    Error error(code_from_errno(error_number),
                fmt::format("{}: {}", what, std::strerror(error_number)), {}, where);
    error.errno_ = error_number;
    if (error.code_ == Code::kNoSpace)
        error.remedy_ = "free space there, or give it more; what waits for it goes on by itself";
    return error;
}

Error Error::with_context(std::string_view context) const {
    Error error = *this;
    error.what_ = fmt::format("{}: {}", context, what_);
    return error;
}

std::string Error::to_string() const {
    if (remedy_.empty()) return fmt::format("{}: {}", code_name(code_), what_);
    return fmt::format("{}: {}; {}", code_name(code_), what_, remedy_);
}

void check_failed(const char* expression, std::string_view detail, std::source_location where) {
    std::fprintf(stderr, "farshore: invariant broken at %s:%u: %s %.*s\n", where.file_name(),
                 static_cast<unsigned>(where.line()), expression, static_cast<int>(detail.size()),
                 detail.data());
    std::abort();
}

}  // namespace farshore
