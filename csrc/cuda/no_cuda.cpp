// Stands in where the extension is built without CUDA, so that asking for the device gives a reason.
namespace gristmill {

const char* cuda_absent_reason() { return "this build has no CUDA table"; }

}  // namespace gristmill
