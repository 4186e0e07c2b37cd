// libnvrtc, emulated: compiles CUDA C++ with the host's compiler and returns the shared object
// as the CUBIN (a CUBIN is an ELF file, too). Nothing outside the source is kept, so that the
// result can lie in a cache on disk.
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

namespace {
enum { Success = 0, InvalidInput = 3, Compilation = 6 };

bool watched = false;
int major_version = 0;

struct Program {
    std::string source, log, image;
};

// The folder of this library, where the shim lies.
std::string folder() {
    Dl_info info;
    if (!dladdr(reinterpret_cast<void *>(&folder), &info)) return ".";
    std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/'));
}

std::string quoted(const std::string &text) {
    std::string quoted = "'";
    for (char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
}

std::string read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

// The names behind `__global__ void`, with or without launch bounds.
std::vector<std::string> kernels(const std::string &source) {
    std::vector<std::string> names;
    const std::string mark = "__global__";
    for (size_t at = source.find(mark); at != std::string::npos; at = source.find(mark, at)) {
        at += mark.size();
        size_t open = source.find('(', at);
        if (open == std::string::npos) break;
        size_t bounds = source.find("__launch_bounds__", at);
        if (bounds < open) open = source.find('(', source.find(')', open));
        if (open == std::string::npos) break;
        size_t end = open;
        while (end > at && isspace((unsigned char)source[end - 1])) --end;
        size_t start = end;
        while (start > at && (isalnum((unsigned char)source[start - 1]) || source[start - 1] == '_')) --start;
        names.push_back(source.substr(start, end - start));
    }
    return names;
}

// The source, with the loops unrolled that take most of the time. Unrolling all of them would take
// longer than it saves.
std::string unrolled(std::string source) {
    const std::string mark = "#pragma unroll // on the host, too";
    for (size_t at = source.find(mark); at != std::string::npos; at = source.find(mark, at))
        source.replace(at, mark.size(), "#pragma GCC unroll 64");
    return source;
}

// What the driver asks a module for.
std::string table(const std::string &source) {
    std::string entries;
    for (const auto &name : kernels(source)) {
        entries += "    {\"" + name + "\", emulated::sizes_of(" + name + "), [](void **p) { emulated::call(" + name +
                   ", p); }},\n";
    }
    return "\nextern \"C\" const emulated::Kernel emulated_kernels[] = {\n" + entries +
           "    {nullptr, nullptr, nullptr}};\n"
           "extern \"C\" void emulated_attach(emulated::Context *context, unsigned char **start, unsigned char **stop) {\n"
           "    emulated_context = context;\n"
           "    *start = __start_emulated_shared;\n"
           "    *stop = __stop_emulated_shared;\n}\n";
}
} // namespace

extern "C" {
// Kernels that are compiled from now on tell the driver of each access.
void emulator_watch(int on) { watched = on; }
void emulator_compiler_version(int version) { major_version = version; }

// Differs with the emulator's source and with what it is asked to compile, so that a cache of
// compiled kernels does not mix them up.
int nvrtcVersion(int *major, int *minor) {
    *major = major_version, *minor = EMULATOR_KEY ^ watched;
    return Success;
}

const char *nvrtcGetErrorString(int error) {
    return error == Compilation ? "NVRTC_ERROR_COMPILATION" : error == Success ? "NVRTC_SUCCESS" : "NVRTC_ERROR_INVALID_INPUT";
}

int nvrtcCreateProgram(Program **program, const char *source, const char *, int headers, const char *const *,
                       const char *const *) {
    if (headers != 0) return InvalidInput;
    *program = new Program{source, "", ""};
    return Success;
}

int nvrtcDestroyProgram(Program **program) {
    delete *program;
    *program = nullptr;
    return Success;
}

int nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    const char *folders = getenv("TMPDIR");
    std::string at = std::string(folders && *folders ? folders : "/tmp") + "/emulated-nvrtc-XXXXXX";
    if (!mkdtemp(at.data())) {
        program->log = "cannot make a folder " + at;
        return Compilation;
    }
    std::ofstream(at + "/kernel.cu") << unrolled(program->source) << table(program->source);
    const char *compiler = getenv("CXX");
    // Bounds of shared and local arrays trap; products and sums are not contracted, so that what
    // is compared exactly stays comparable.
    std::string command = std::string(compiler ? compiler : "c++") +
                          " -std=c++17 -x c++ -O1 -march=native -ffp-contract=off -fPIC -shared -fno-gnu-unique -w"
                          " -fsanitize=bounds -fsanitize-undefined-trap-on-error -include " +
                          quoted(folder() + "/shim.hpp");
    for (int i = 0; i < count; ++i) {
        if (!strncmp(options[i], "-D", 2) || !strncmp(options[i], "-I", 2)) command += " " + quoted(options[i]);
    }
    const std::string log = ">" + quoted(at + "/log") + " 2>&1", made = quoted(at + "/kernel.so");
    if (watched) {
        // Linked without the flag, so that the calls stay open for the shim's.
        std::string object = quoted(at + "/kernel.o");
        std::string link = std::string(compiler ? compiler : "c++") + " -shared -o " + made + " " + object;
        command += " -c -fsanitize=thread -o " + object + " " + quoted(at + "/kernel.cu") + " " + log + " && " + link + " >" + log;
        command += "; status=$?; rm -f " + object + "; exit $status";
    } else {
        command += " -o " + made + " " + quoted(at + "/kernel.cu") + " " + log;
    }
    int status = system(command.c_str());
    program->log = read(at + "/log");
    program->image = read(at + "/kernel.so");
    for (const char *name : {"/kernel.cu", "/kernel.so", "/log"}) unlink((at + name).c_str());
    rmdir(at.c_str());
    return status == 0 && !program->image.empty() ? Success : Compilation;
}

int nvrtcGetProgramLogSize(Program *program, size_t *size) {
    *size = program->log.size() + 1;
    return Success;
}
int nvrtcGetProgramLog(Program *program, char *log) {
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return Success;
}
int nvrtcGetCUBINSize(Program *program, size_t *size) {
    *size = program->image.size();
    return Success;
}
int nvrtcGetCUBIN(Program *program, char *image) {
    memcpy(image, program->image.data(), program->image.size());
    return Success;
}
int nvrtcGetPTXSize(Program *program, size_t *size) { return nvrtcGetCUBINSize(program, size); }
int nvrtcGetPTX(Program *program, char *image) { return nvrtcGetCUBIN(program, image); }
}
