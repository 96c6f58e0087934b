import org.jetbrains.kotlin.cli.common.ExitCode;
import org.jetbrains.kotlin.cli.jvm.K2JVMCompiler;

/**
 * Compiles several modules in one process, of which the first warms the compiler up for the others: the app's three take 23 s of
 * CPU time, where the classifier alone takes 17 by kotlinc. Each argument is a file with a kotlinc command line; the first failure ends it.
 *
 * <p>{@code java -cp kotlin-compiler.jar scripts/Kotlinc.java core.args app.args}
 */
class Kotlinc {
    public static void main(String[] commandLines) {
        for (String file : commandLines) {
            ExitCode code = new K2JVMCompiler().exec(System.err, "@" + file);
            if (code != ExitCode.OK) System.exit(1);
        }
        System.exit(0); // the compiler leaves threads behind
    }
}
