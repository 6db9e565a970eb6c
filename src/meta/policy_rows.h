// A policy's row inside of a transaction that does more than reading it. Private to src/meta.
#pragma once

#include "meta/sql_session.h"

#include "meta/policies.h"

namespace farshore {

// kNotFound.
Result<PolicyRecord> read_policy_row(SqlSession& sql, const std::string& name);

}  // namespace farshore
