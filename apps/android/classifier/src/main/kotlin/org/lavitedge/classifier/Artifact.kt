package org.lavitedge.classifier

import android.content.Context
import org.lavitedge.core.UserError
import org.lavitedge.core.checkSeal
import java.io.File
import java.io.IOException

private const val LARGEST = 1L shl 28 // bytes: it is read into memory, where its digest is taken

/**
 * A `.pte` whose bytes are those that were exported.
 *
 * @property file where it lies, since ExecuTorch loads by path.
 * @property name what messages and reports call it.
 */
class Artifact private constructor(val file: File, val name: String, val bytes: ByteArray) {
    companion object {
        /** @throws UserError there is no such file, it is too large, or it is not what was exported. */
        fun of(file: File): Artifact {
            if (!file.isFile) throw UserError("${file.name} is not there, or is no file")
            if (file.length() > LARGEST) throw UserError("${file.name} is over ${LARGEST shr 20} MB, more than any of ours")
            val bytes = readable(file.name) { file.readBytes() }
            checkSeal(bytes, file.name)
            return Artifact(file, file.name, bytes)
        }

        /**
         * The artifact [name] among the app's assets. Assets have no path, so it is copied once; the copy bears its digest in its
         * name, and an earlier model's goes.
         *
         * @throws UserError as [of], or there is no space for the copy.
         */
        fun ofAsset(context: Context, name: String): Artifact {
            val bytes = readable(name) { context.assets.open(name).use { it.readBytes() } }
            return unpack(bytes, name, File(context.noBackupFilesDir, "lavit-edge"))
        }

        internal fun unpack(bytes: ByteArray, name: String, folder: File): Artifact {
            val file = File(folder, "${checkSeal(bytes, name)}.pte")
            readable(name) {
                if (!file.isFile || !file.readBytes().contentEquals(bytes)) {
                    folder.mkdirs()
                    val part = File.createTempFile("part", null, folder)
                    part.writeBytes(bytes)
                    if (!part.renameTo(file)) throw IOException("cannot rename ${part.name}")
                }
                folder.listFiles()?.filter { it.name.endsWith(".pte") && it != file }?.forEach { it.delete() }
            }
            return Artifact(file, name, bytes)
        }

        private fun <T> readable(name: String, work: () -> T): T = try {
            work()
        } catch (error: IOException) {
            throw UserError("$name cannot be read or unpacked (${error.message ?: error.javaClass.simpleName})")
        }
    }
}
