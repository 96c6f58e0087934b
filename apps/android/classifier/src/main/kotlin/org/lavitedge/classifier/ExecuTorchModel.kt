package org.lavitedge.classifier

import org.lavitedge.core.Contract
import org.lavitedge.core.Model
import org.lavitedge.core.UserError
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.File
import java.nio.FloatBuffer

private val ENTRIES = listOf("contract", "provenance", "golden", "digest") // docs/payload.md

/**
 * A `.pte` in ExecuTorch. Nothing here is Android's, so that the tests run this class on the JVM. One thread at a time.
 *
 * @property name what messages call the artifact.
 * @throws UserError ExecuTorch is missing or refuses the file, or the file carries no contract.
 */
class ExecuTorchModel(file: File, private val name: String, threads: Int) :
    Model,
    AutoCloseable {
    private val module: Module = load(file, threads)
    private val methods: Set<String>
    private val argument: EValue

    /** `XNNPACK` where the network runs in it, `CPU` where it runs in ExecuTorch's own kernels. */
    val backend: String

    /** Reused: the runtime reads it where it lies. */
    override val input: FloatBuffer

    init {
        try {
            methods = guarded("cannot be read") { module.getMethods().toSet() }
            val contract =
                entry("contract") ?: throw UserError("$name carries no contract; only an artifact of lavit-edge can be used")
            val size = Contract.parse(String(contract, Charsets.UTF_8)).size
            backend = guarded("cannot run on this device") {
                val found = module.getMethodMetadata("forward").backends.distinct() // one for each part of the network
                val error: Any? = module.loadMethod("forward") // a number until ExecuTorch 1.3; later it throws
                if (error is Int && error != 0) throw UserError("$name cannot run on this device (ExecuTorch's error $error)")
                if (found.isEmpty()) "CPU" else found.joinToString("+") { it.removeSuffix("Backend").uppercase() }
            }
            input = Tensor.allocateFloatBuffer(3 * size * size)
            argument = EValue.from(Tensor.fromBlob(input, longArrayOf(1, 3, size.toLong(), size.toLong())))
        } catch (error: Throwable) {
            module.destroy() // the file stays mapped otherwise
            throw error
        }
    }

    override fun entries(): Map<String, ByteArray> = ENTRIES.mapNotNull { name -> entry(name)?.let { name to it } }.toMap()

    override fun run(): FloatArray = guarded("fails when it runs") { module.forward(argument)[0].toTensor().dataAsFloatArray }

    override fun close() = module.destroy()

    private fun entry(method: String): ByteArray? {
        if (method !in methods) return null
        return guarded("has a damaged entry '$method'") {
            val value = module.execute(method)[0]
            if (method == "golden") value.toTensor().dataAsUnsignedByteArray else value.toStr().toByteArray()
        }
    }

    private fun load(file: File, threads: Int): Module = try {
        guarded("is not a program that this app's ExecuTorch can load") {
            Module.load(file.path, Module.LOAD_MODE_MMAP, threads)
        }
    } catch (error: LinkageError) { // an app without the library for this processor
        throw UserError("ExecuTorch's library is not in this app, or not for this processor (${error.message})")
    }

    /** ExecuTorch's exceptions have no common base but this; their texts go into the one line that a user sees. */
    private fun <T> guarded(what: String, work: () -> T): T = try {
        work()
    } catch (error: RuntimeException) {
        throw UserError("$name $what (${error.message ?: error.javaClass.simpleName})")
    }
}
