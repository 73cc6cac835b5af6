package org.deixis.house;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.ToolProvider;
import org.deixis.cli.Main;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What the documents say holds: the example compiles, commands and files that they name exist. */
class ReadmeTest {
  @TempDir Path dir;

  private static String readme() throws IOException {
    return Files.readString(Path.of("README.md"));
  }

  @Test
  void theJavaExampleCompiles() throws IOException {
    compiles("README.md", "import java.nio.file.Path;\nimport org.deixis.infer.*;\n", "void run()");
  }

  @Test
  void theJavaExampleOfOnnxRuntimeCompiles() throws IOException {
    compiles(
        "docs/onnx.md",
        "import ai.onnxruntime.*;\nimport java.nio.FloatBuffer;\nimport java.util.Map;\n",
        "void run(float[] pixels) throws OrtException");
  }

  private void compiles(String document, String imports, String method) throws IOException {
    Matcher block =
        Pattern.compile("```java\\n(.*?)```", Pattern.DOTALL)
            .matcher(Files.readString(Path.of(document)));
    assertTrue(block.find(), document + " has a Java example");
    Path source = dir.resolve("Example.java");
    Files.writeString(
        source, imports + "class Example {\n  " + method + " {\n" + block.group(1) + "  }\n}\n");
    ByteArrayOutputStream messages = new ByteArrayOutputStream();
    int result =
        ToolProvider.getSystemJavaCompiler()
            .run(
                null,
                messages,
                messages,
                "-proc:none",
                "-cp",
                System.getProperty("java.class.path"),
                "-d",
                dir.toString(),
                source.toString());
    assertEquals(0, result, messages.toString(StandardCharsets.UTF_8));
  }

  @Test
  void commandsThatAreNamedExist() throws IOException {
    Matcher command = Pattern.compile("\\./deixis (\\w+)").matcher(readme());
    int found = 0;
    while (command.find()) {
      PrintStream nowhere = new PrintStream(new ByteArrayOutputStream());
      assertEquals(0, Main.run(nowhere, nowhere, command.group(1), "--help"), command.group());
      found++;
    }
    assertTrue(found > 4);
  }

  @Test
  void linksLeadSomewhere() throws IOException {
    List<Path> documents = new ArrayList<>(List.of(Path.of("README.md")));
    try (var files = Files.list(Path.of("docs"))) {
      files.filter(f -> f.toString().endsWith(".md")).forEach(documents::add);
    }
    for (Path document : documents) {
      Matcher link = Pattern.compile("\\]\\(([^)#:]+)\\)").matcher(Files.readString(document));
      while (link.find()) {
        Path target = document.toAbsolutePath().getParent().resolve(link.group(1));
        assertTrue(Files.exists(target), document + " links to " + link.group(1));
      }
    }
  }
}
