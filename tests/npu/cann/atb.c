/* libatb of CANN's NNAL, which libop_plugin_atb.so of torch_npu is linked with: what it takes from there.

   With it the released library loads and defines the operators of the namespace atb with their schemas. No
   operation can be created; the operators are computed on the CPU instead (packages/npu_operators). The names
   are those that `nm -D --undefined-only libop_plugin_atb.so` prints; a function of C has no use for their
   arguments. */
#define ERROR 1

#define REFUSE(function, name)         \
  int function(void) __asm__(name);    \
  int function(void) { return ERROR; }

REFUSE(create_context, "_ZN3atb13CreateContextEPPNS_7ContextE")
REFUSE(destroy_context, "_ZN3atb14DestroyContextEPNS_7ContextE")
REFUSE(destroy_operation, "_ZN3atb16DestroyOperationEPNS_9OperationE")
REFUSE(tensor_size, "_ZN3atb5Utils13GetTensorSizeERKNS_6TensorE")

/* int atb::CreateOperation(const atb::infer::<kind>Param &, atb::Operation **) */
#define OPERATION(function, kind) \
  REFUSE(function, "_ZN3atb15CreateOperationINS_5infer" kind "ParamEEEiRKT_PPNS_9OperationE")

OPERATION(linear, "11Linear")
OPERATION(elewise, "12Elewise")
OPERATION(rms_norm, "12RmsNorm")
OPERATION(group_topk, "14GroupTopk")
OPERATION(self_attention, "18SelfAttention")
OPERATION(paged_attention, "19PagedAttention")
OPERATION(reshape_and_cache, "20ReshapeAndCache")
OPERATION(rope, "9Rope")
