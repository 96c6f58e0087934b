package org.lavitedge.driver

import org.lavitedge.classifier.ExecuTorchModel
import org.lavitedge.classifier.LavitClassifier
import org.lavitedge.core.FrameConverter
import java.io.File

/** An app without a screen: opens the `.pte` that it is given, and prints the logits and the best answer of each golden picture. */
fun main(arguments: Array<String>) {
    val file = File(arguments.single())
    LavitClassifier.open(file).use { classifier ->
        println("self-test: ${classifier.selfTest.failure ?: "passed"}")
        val converter = FrameConverter(classifier.payload.contract)
        ExecuTorchModel(file, file.name, 1).use { model ->
            for (golden in classifier.payload.golden) {
                converter.convert(golden.picture)
                model.input.duplicate().put(converter.tensor())
                println("logits: ${model.run().joinToString(" ")}")
                println("answer: ${classifier.classify(golden.picture).answers.first().index}")
            }
        }
    }
}
