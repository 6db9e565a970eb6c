// Text of others, for documents and lines.
#pragma once

#include <string>

namespace farshore {

// What a program or a guest printed may hold anything: control characters but line ends and tabs
// become '?', so that each document and database takes it.
inline std::string plain_text(std::string text) {
    for (char& c : text)
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') c = '?';
    return text;
}

}  // namespace farshore
