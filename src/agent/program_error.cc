#include "agent/program_error.h"

namespace farshore {

Error error_from_output(std::string output, const std::string& without) {
    while (!output.empty() && output.back() == '\n') output.pop_back();
    if (const size_t from = output.rfind("farshore: "); from != std::string::npos)
        output = output.substr(from + 10);
    const size_t colon = output.find(": ");
    if (colon == std::string::npos) return Error(Code::kUnavailable, without + ": " + output);
    const Code code = code_from_name(output.substr(0, colon));
    std::string what = output.substr(colon + 2), remedy;
    if (const size_t mark = what.find("; "); mark != std::string::npos) {
        remedy = what.substr(mark + 2);
        what.resize(mark);
    }
    return Error(code, what, remedy);
}

}  // namespace farshore
