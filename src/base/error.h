// Errors as values. Every fallible function returns Result<T> or Status; no exception crosses the
// border of a folder.
//
// An Error says what went wrong in words for a person (`what`), how to mend it (`remedy`), a stable
// code for programs, the errno where a system call was the cause, whether trying again can help,
// and where in the source it arose. Errors are values: copy and keep them freely, on any thread.
#pragma once

#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "base/error_codes.h"

namespace farshore {

enum class Code : uint8_t {
#define FARSHORE_X(name, text, http, exit, retry) name,
    FARSHORE_ERROR_CODES(FARSHORE_X)
#undef FARSHORE_X
};

// Whether the same call can succeed later without anybody mending anything.
enum class Retry : uint8_t {
    kNever,  // the same call fails again
    kSoon,   // transient: try again with back-off
    kLater,  // a resource is exhausted: try again after it was freed
};

std::string_view code_name(Code code);
// The code named `name`, or kInternal when this version does not know it.
Code code_from_name(std::string_view name);
int code_http_status(Code code);
int code_exit_status(Code code);
Retry code_retry(Code code);

class [[nodiscard]] Error {
  public:
    Error(Code code, std::string what, std::string remedy = {},
          std::source_location where = std::source_location::current())
        : code_(code), where_(where), what_(std::move(what)), remedy_(std::move(remedy)) {}

    // From errno: ENOSPC/EDQUOT become kNoSpace, ENOENT kNotFound, EEXIST kAlreadyExists, ETIMEDOUT
    // kTimeout, connection errnos kConnectionLost, EACCES/EPERM kForbidden, the rest kIo.
    static Error from_errno(int error_number, std::string what,
                            std::source_location where = std::source_location::current());

    Code code() const { return code_; }
    int error_number() const { return errno_; }
    Retry retry() const { return code_retry(code_); }
    const std::string& what() const { return what_; }
    const std::string& remedy() const { return remedy_; }
    const std::source_location& where() const { return where_; }

    // The same error with "context: " put before its words.
    Error with_context(std::string_view context) const;
    // "code: what; remedy", one line.
    std::string to_string() const;

  private:
    Code code_;
    int errno_ = 0;
    std::source_location where_;
    std::string what_;
    std::string remedy_;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

template <typename... Args>
[[nodiscard]] inline tl::unexpected<Error> fail(
    Code code, std::string what, std::string remedy = {},
    std::source_location where = std::source_location::current()) {
    return tl::unexpected<Error>(Error(code, std::move(what), std::move(remedy), where));
}
[[nodiscard]] inline tl::unexpected<Error> fail(Error error) {
    return tl::unexpected<Error>(std::move(error));
}
[[nodiscard]] inline tl::unexpected<Error> fail_errno(
    int error_number, std::string what,
    std::source_location where = std::source_location::current()) {
    return tl::unexpected<Error>(Error::from_errno(error_number, std::move(what), where));
}

// Ends the process after printing the reason. For our own invariants only, never for input, peers,
// disks, networks or configuration.
[[noreturn]] void check_failed(const char* expression, std::string_view detail,
                               std::source_location where = std::source_location::current());

}  // namespace farshore

#define FS_CHECK(expression)                           \
    do {                                               \
        if (!(expression)) [[unlikely]]                \
            ::farshore::check_failed(#expression, {}); \
    } while (false)

#define FS_CONCAT_INNER(a, b) a##b
#define FS_CONCAT(a, b) FS_CONCAT_INNER(a, b)

// Returns the error of a Status or Result expression to the caller.
#define FS_TRY(expression)                                             \
    do {                                                               \
        auto fs_try_status = (expression);                             \
        if (!fs_try_status) [[unlikely]]                               \
            return ::tl::unexpected(std::move(fs_try_status).error()); \
    } while (false)

// FS_ASSIGN(auto x, expression): x is the value, or the error is returned to the caller.
#define FS_ASSIGN(declaration, expression) \
    FS_ASSIGN_INNER(FS_CONCAT(fs_assign_, __COUNTER__), declaration, expression)
#define FS_ASSIGN_INNER(name, declaration, expression)    \
    auto name = (expression);                             \
    if (!name) [[unlikely]]                               \
        return ::tl::unexpected(std::move(name).error()); \
    declaration = std::move(*name)
