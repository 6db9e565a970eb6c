// The one table of error codes. A code exists only where a caller, a script or an operator would
// react differently; everything else shares the code of its family.
//
// Columns: enumerator, stable name (never renamed, printed and sent over the API), HTTP status,
// exit code of the CLI, retry class (see error.h).
#pragma once

// clang-format off
#define FARSHORE_ERROR_CODES(X) \
    X(kInternal,            "internal",               500, 70, kNever)   \
    X(kInvalidArgument,     "invalid-argument",       400, 64, kNever)   \
    X(kMalformed,           "malformed",              400, 65, kNever)   \
    X(kUnauthenticated,     "unauthenticated",        401, 77, kNever)   \
    X(kForbidden,           "forbidden",              403, 77, kNever)   \
    X(kNotFound,            "not-found",              404, 66, kNever)   \
    X(kItemNotFound,        "item-not-found",         404, 66, kNever)   \
    X(kPointNotFound,       "point-not-found",        404, 66, kNever)   \
    X(kPointOutsideWindow,  "point-outside-window",   422, 66, kNever)   \
    X(kPointInGap,          "point-in-gap",           422, 66, kNever)   \
    X(kAlreadyExists,       "already-exists",         409, 73, kNever)   \
    X(kWrongState,          "wrong-state",            409, 75, kNever)   \
    X(kCancelled,           "cancelled",              409, 75, kNever)   \
    X(kDiskChanged,         "disk-changed",           409, 65, kNever)   \
    X(kUnsupported,         "unsupported",            422, 69, kNever)   \
    X(kFenced,              "fenced",                 409, 75, kNever)   \
    X(kVaultReplaced,       "vault-replaced",         409, 75, kNever)   \
    X(kDuplicateIdentity,   "duplicate-identity",     409, 75, kNever)   \
    X(kSequenceHole,        "sequence-hole",          409, 65, kNever)   \
    X(kPreconditionFailed,  "precondition-failed",    412, 75, kNever)   \
    X(kKeyReused,           "idempotency-key-reused", 422, 65, kNever)   \
    X(kInProgress,          "in-progress",            409, 75, kSoon)    \
    X(kOutcomeUnknown,      "outcome-unknown",        409, 75, kNever)   \
    X(kCorrupt,             "corrupt",                500, 65, kNever)   \
    X(kTruncated,           "truncated",              500, 65, kNever)   \
    X(kNewerVersion,        "newer-version",          422, 65, kNever)   \
    X(kForeignStore,        "foreign-store",          422, 65, kNever)   \
    X(kWrongKey,            "wrong-key",              422, 77, kNever)   \
    X(kTooLarge,            "too-large",              413, 65, kNever)   \
    X(kLimitReached,        "limit-reached",          503, 75, kLater)   \
    X(kNoSpace,             "no-space",               507, 74, kLater)   \
    X(kIo,                  "io-error",               500, 74, kLater)   \
    X(kUnavailable,         "unavailable",            503, 69, kSoon)    \
    X(kThrottled,           "throttled",              429, 75, kLater)   \
    X(kTimeout,             "timeout",                504, 75, kSoon)    \
    X(kConnectionLost,      "connection-lost",        503, 69, kSoon)    \
    X(kGuestFailed,         "guest-failed",           500, 70, kNever)   \
    X(kDependencyMissing,   "dependency-missing",     500, 69, kNever)
// clang-format on
